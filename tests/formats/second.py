#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A second opinion, libvhdi's, libqcow's or libvmdk's.

	second.py vhd|qcow|vmdk OUT IMAGE [PARENT...]	the disk, to OUT

The Python of the distribution: its bindings are packages.
"""
import sys


def open_image(kind, path):
	if kind == 'vhd':
		import pyvhdi
		f = pyvhdi.file()
	elif kind == 'qcow':
		import pyqcow
		f = pyqcow.file()
	else:
		import pyvmdk
		f = pyvmdk.handle()
	f.open(path)
	if kind == 'vmdk':
		f.open_extent_data_files()
	return f


def open_chain(kind, paths):
	files = []
	for path in reversed(paths):
		f = open_image(kind, path)
		if files:
			f.set_parent(files[-1])
		files.append(f)
	return files


def main(kind, out, *paths):
	files = open_chain(kind, paths)
	top = files[-1]
	size = top.get_media_size()
	with open(out, 'wb') as f:
		f.truncate(size)
		at = 0
		while at < size:
			data = top.read_buffer_at_offset(min(1 << 20, size - at), at)
			if not data:
				sys.exit(f'second.py: {paths[0]}: ends at {at} of {size}')
			if data.count(0) != len(data):
				f.seek(at)
				f.write(data)
			at += len(data)


main(*sys.argv[1:])
