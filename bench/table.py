# SPDX-License-Identifier: GPL-2.0-or-later
# table.py DIR: DIR/raw.tsv, which bench/inside wrote, as text, markdown, JSON and plots.
#
# A ratio is taken within one round, of figures that were measured next to each
# other; what is shown is the median of the rounds, and the least and the largest.
import collections
import csv
import json
import os
import statistics
import sys

# What each group's figures are divided by, the first one first.
REFERENCES = {
    "block": ["linear"],
    "first": ["linear", "snapshot", "thin"],
    "flush": ["linear", "snapshot"],
    "growth": ["dscow-1G", "extents-1"],
    "file-ext4": ["loop", "plain", "qemu_nbd", "loop_linear", "ublk"],
    "file-xfs": ["loop", "plain", "qemu_nbd", "loop_linear", "ublk"],
    "control": ["nbd_null"],
    "many": ["qemu_nbd"],
}
# (group, subject, pattern or "", reference): the ratio that is wanted, at least.
WANTED = {("block", "dscow", "", "linear"): 0.97,
          ("first", "dscow", "randwrite-4k", "snapshot"): 2.0,
          ("first", "dscow", "randwrite-4k", "thin"): 3.0,
          ("first", "dscow", "write-1M", "linear"): 0.8,
          ("flush", "dscow", "fsync-4k", "linear"): 0.9,
          ("flush", "dscow", "first-fsync-4k", "snapshot"): 1.0,
          ("growth", "dscow-64G", "", "dscow-1G"): 0.9,
          ("growth", "dscow-1024G", "", "dscow-1G"): 0.9,
          ("growth", "dscow-16384G", "", "dscow-1G"): 0.9,
          ("growth", "extents-1000", "", "extents-1"): 0.9,
          ("growth", "extents-100000", "", "extents-1"): 0.9,
          ("growth", "extents-1000000", "", "extents-1"): 0.9,
          ("control", "ask", "", "nbd_null"): 1.5,
          ("many", "cowd", "attach", "qemu_nbd"): 3.0}
for fs in "file-ext4", "file-xfs":
    for subject in "dscow_file", "qcow2", "vmdk":
        WANTED[fs, subject, "", "loop"] = 0.95
        WANTED[fs, subject, "", "qemu_nbd"] = 8.0
        for pattern in "read-128k", "write-128k", "read-1M", "write-1M":
            WANTED[fs, subject, pattern, "plain"] = 0.9


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def read_raw(folder):
    """{(group, pattern, depth): {subject: {round: (iops, p50, p99)}}}"""
    cases = collections.OrderedDict()
    with open(os.path.join(folder, "raw.tsv")) as f:
        for group, subject, pattern, depth, turn, *figures in csv.reader(f, delimiter="\t"):
            case = cases.setdefault((group, pattern, int(depth)), {})
            case.setdefault(subject, {})[int(turn)] = [float(x or 0) for x in figures]
    return cases


def ratio(mine, other):
    rounds = sorted(set(mine) & set(other))
    values = [mine[r][0] / other[r][0] for r in rounds if other[r][0]]
    return spread(values) if values else None


def wish(group, subject, pattern, reference):
    for key in ((group, subject, pattern, reference), (group, subject, "", reference)):
        if key in WANTED:
            return WANTED[key]
    return None


def summarise(cases):
    rows = []
    for (group, pattern, depth), subjects in cases.items():
        for subject, turns in sorted(subjects.items()):
            row = {"group": group, "pattern": pattern, "depth": depth, "subject": subject,
                   "rounds": len(turns),
                   "iops": spread([t[0] for t in turns.values()]),
                   "p50": statistics.median(t[1] for t in turns.values()),
                   "p99": statistics.median(t[2] for t in turns.values()),
                   "ratios": {}}
            for reference in REFERENCES[group]:
                if reference == subject or reference not in subjects:
                    continue
                found = ratio(turns, subjects[reference])
                if found:
                    found["wanted"] = wish(group, subject, pattern, reference)
                    row["ratios"][reference] = found
            rows.append(row)
    return rows


def verdict(r):
    if r["wanted"] is None:
        return ""
    return "met" if r["median"] >= r["wanted"] else "short of %.2f" % r["wanted"]


def show(r):
    text = "%.2f (%.2f to %.2f)" % (r["median"], r["least"], r["most"])
    word = verdict(r)
    return text + (" " + word if word else "")


def tables(rows):
    """Yields (group, header, lines)."""
    for group, references in REFERENCES.items():
        mine = [r for r in rows if r["group"] == group]
        used = [ref for ref in references if any(ref in r["ratios"] for r in mine)]
        header = ["pattern", "depth", "subject", "I/O a second", "spread", "p50, p99 us"] + ["against " + u for u in used]
        lines = []
        for r in mine:
            line = [r["pattern"], str(r["depth"]), r["subject"], "%.0f" % r["iops"]["median"],
                    "%.0f to %.0f" % (r["iops"]["least"], r["iops"]["most"]),
                    "%.0f, %.0f" % (r["p50"], r["p99"])]
            line += [show(r["ratios"][u]) if u in r["ratios"] else "" for u in used]
            lines.append(line)
        if lines:
            yield group, header, lines


def as_text(header, lines):
    widths = [max(len(x[i]) for x in [header] + lines) for i in range(len(header))]
    return ["  ".join(x.ljust(w) for x, w in zip(line, widths)).rstrip() for line in [header] + lines]


def as_markdown(header, lines):
    return ["| " + " | ".join(x) + " |" for x in [header, ["---"] * len(header)] + lines]


def read_facts(folder):
    with open(os.path.join(folder, "facts")) as f:
        return [line.strip().split("=", 1) for line in f if "=" in line]


def write(folder, name, lines):
    with open(os.path.join(folder, name), "w") as f:
        f.write("\n".join(lines) + "\n")


def report(folder, rows, facts):
    text = ["%s: %s" % (k, v) for k, v in facts]
    mark = ["- %s: %s" % (k, v) for k, v in facts]
    for group, header, lines in tables(rows):
        text += ["", group, ""] + as_text(header, lines)
        mark += ["", "### " + group, ""] + as_markdown(header, lines)
    write(folder, "result.txt", text)
    write(folder, "result.md", mark)
    with open(os.path.join(folder, "result.json"), "w") as f:
        json.dump({"facts": dict(facts), "rows": rows}, f, indent=1)
    print("\n".join(text))


def bars(plt, folder, group, rows):
    reference = next((u for u in REFERENCES[group] if any(u in r["ratios"] for r in rows)), None)
    if not reference:
        return
    cases = list(dict.fromkeys((r["pattern"], r["depth"]) for r in rows))
    subjects = sorted({r["subject"] for r in rows if reference in r["ratios"]})
    width = 0.8 / len(subjects)
    fig, ax = plt.subplots(figsize=(max(6, 1.1 * len(cases)), 4))
    for i, subject in enumerate(subjects):
        found = {(r["pattern"], r["depth"]): r["ratios"][reference] for r in rows
                 if r["subject"] == subject and reference in r["ratios"]}
        at = [x for x, c in enumerate(cases) if c in found]
        mine = [found[cases[x]] for x in at]
        ax.bar([x + i * width for x in at], [m["median"] for m in mine], width, label=subject,
               yerr=[[m["median"] - m["least"] for m in mine], [m["most"] - m["median"] for m in mine]],
               capsize=2)
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set_xticks([x + 0.4 - width / 2 for x in range(len(cases))])
    ax.set_xticklabels(["%s\n%d deep" % c for c in cases], fontsize=7)
    ax.set_ylabel("against " + reference)
    ax.legend(fontsize=7)
    fig.tight_layout()
    fig.savefig(os.path.join(folder, group + ".png"), dpi=100)
    plt.close(fig)


def curve(ax, rows, reference, label):
    """What an I/O costs as the number in the subject's name grows."""
    kind = reference.split("-")[0] + "-"
    points = []
    for r in rows:
        if r["subject"] == reference:
            points.append((int(reference[len(kind):].rstrip("G")), 1, 1, 1))
        elif r["subject"].startswith(kind) and reference in r["ratios"]:
            found = r["ratios"][reference]
            points.append((int(r["subject"][len(kind):].rstrip("G")), 1 / found["median"],
                           1 / found["most"], 1 / found["least"]))
    points.sort()
    ax.errorbar([p[0] for p in points], [p[1] for p in points], marker="o", capsize=3,
                yerr=[[p[1] - p[2] for p in points], [p[3] - p[1] for p in points]])
    ax.set_xscale("log")
    ax.set_ylim(0, 1.5)
    ax.axhline(1 / 0.9, color="black", linewidth=0.8, linestyle="--")
    ax.set_xlabel(label)


def curves(plt, folder, rows):
    fig, axes = plt.subplots(1, 2, sharey=True, figsize=(8, 4))
    curve(axes[0], rows, "dscow-1G", "GiB of a dscow device")
    curve(axes[1], rows, "extents-1", "entries in the map")
    axes[0].set_ylabel("cost of a read, the smallest is 1")
    fig.tight_layout()
    fig.savefig(os.path.join(folder, "growth.png"), dpi=100)
    plt.close(fig)


def plots(folder, rows):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    for group in REFERENCES:
        mine = [r for r in rows if r["group"] == group]
        if mine and group == "growth":
            curves(plt, folder, mine)
        elif mine:
            bars(plt, folder, group, mine)


def main():
    folder = sys.argv[1]
    rows = summarise(read_raw(folder))
    report(folder, rows, read_facts(folder))
    plots(folder, rows)


main()
