// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * xl-disk - what xl's own parser makes of a disk's specification, or of all disks of a
 * configuration file.  Needs Xen's libraries, but no Xen.
 *
 *	xl-disk SPECIFICATION
 *	xl-disk -f FILE
 */
#include <libxl.h>
#include <libxlutil.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int show(XLU_Config *config, const char *spec)
{
	libxl_device_disk disk;
	int ret;

	libxl_device_disk_init(&disk);
	ret = xlu_disk_parse(config, 1, &spec, &disk);
	if (!ret)
		printf("%s|%s|%s|%s|%s\n", disk.vdev,
		       disk.readwrite ? "w" : "r",
		       disk.is_cdrom ? "cdrom" : "disk",
		       disk.script ? disk.script : "", disk.pdev_path);
	libxl_device_disk_dispose(&disk);
	return ret;
}

static int show_file(XLU_Config *config, const char *path)
{
	XLU_ConfigList *disks;
	const char *spec;
	size_t size = 0;
	char *text = NULL;
	FILE *f = fopen(path, "r");
	int count, i, ret;

	if (!f || getdelim(&text, &size, '\0', f) < 0)
		return 1;
	fclose(f);
	ret = xlu_cfg_readdata(config, text, strlen(text));
	free(text);
	if (ret || xlu_cfg_get_list(config, "disk", &disks, &count, 0))
		return 1;
	for (i = 0; i < count && !ret; i++) {
		spec = xlu_cfg_get_listitem(disks, i);
		ret = spec ? show(config, spec) : 1;
	}
	return ret;
}

int main(int argc, char **argv)
{
	XLU_Config *config = xlu_cfg_init(stderr, "xl-disk");
	int ret;

	if (argc == 3 && strcmp(argv[1], "-f") == 0)
		ret = show_file(config, argv[2]);
	else if (argc == 2)
		ret = show(config, argv[1]);
	else
		ret = 2;
	xlu_cfg_destroy(config);
	return ret != 0;
}
