#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A VHD by its specification, for tests; knows nothing of the plugin.

	vhd.py read IMAGE OUT		the disk, with its parents, to OUT
	vhd.py get IMAGE FIELD		of footer., end. (the footer at the end),
					header. or bat[N]
	vhd.py set IMAGE FIELD=VALUE...	the same, checksums made right; of raw.
					instead of footer.: left as they are
	vhd.py bits IMAGE BLOCK		sectors that the bitmap says are there
"""
import os
import struct
import sys

FOOTER = (('features', 8, 'I'), ('version', 12, 'I'), ('data_offset', 16, 'Q'),
	  ('original_size', 40, 'Q'), ('current_size', 48, 'Q'),
	  ('cylinders', 56, 'H'), ('heads', 58, 'B'), ('sectors', 59, 'B'),
	  ('type', 60, 'I'), ('checksum', 64, 'I'), ('creator', 28, '4s'),
	  ('unique_id', 68, '16s'), ('cookie', 0, '8s'))
HEADER = (('cookie', 0, '8s'), ('table_offset', 16, 'Q'), ('version', 24, 'I'),
	  ('max_table_entries', 28, 'I'), ('block_size', 32, 'I'),
	  ('checksum', 36, 'I'), ('parent_id', 40, '16s'),
	  ('parent_time', 56, 'I'), ('parent_name', 64, '512s')) + tuple(
	(f'locator{i}.{n}', 576 + 24 * i + o, t) for i in range(8)
	for n, o, t in (('platform', 0, 'I'), ('space', 4, 'I'),
			('length', 8, 'I'), ('offset', 16, 'Q')))
FREE = 0xffffffff


def field(table, name):
	for n, offset, kind in table:
		if n == name:
			return offset, '>' + kind
	sys.exit(f'vhd.py: no field {name}')


def get(buf, table, name):
	offset, kind = field(table, name)
	return struct.unpack_from(kind, buf, offset)[0]


def put(buf, table, name, value):
	offset, kind = field(table, name)
	struct.pack_into(kind, buf, offset, value)


def checksum(buf, at):
	return ~(sum(buf) - sum(buf[at:at + 4])) & 0xffffffff


class Vhd:
	def __init__(self, path, mode='rb'):
		self.path = path
		self.file = open(path, mode)
		self.bytes = os.fstat(self.file.fileno()).st_size
		self.end = self.at(self.bytes - 512, 512)
		self.footer = self.end
		if get(self.end, FOOTER, 'type') != 2:
			self.footer = self.at(0, 512)
			self.header = self.at(self.of('data_offset'), 1024)

	def at(self, offset, length):
		self.file.seek(offset)
		return bytearray(self.file.read(length))

	def write(self, offset, buf):
		self.file.seek(offset)
		self.file.write(buf)

	def of(self, name):
		return get(self.footer, FOOTER, name)

	def h(self, name):
		return get(self.header, HEADER, name)

	def entry(self, block):
		raw = self.at(self.h('table_offset') + 4 * block, 4)
		return struct.unpack('>I', raw)[0]

	def parent(self):
		for code in b'W2ru', b'W2ku':
			for i in range(8):
				if self.h(f'locator{i}.platform') != \
				   struct.unpack('>I', code)[0]:
					continue
				raw = self.at(self.h(f'locator{i}.offset'),
					      self.h(f'locator{i}.length'))
				path = raw.decode('utf-16-le').replace('\\', '/')
				path = os.path.join(os.path.dirname(self.path), path)
				if os.path.exists(path):
					return path
		sys.exit(f'vhd.py: {self.path}: no parent is found')

	def below(self, size):
		if self.of('type') != 4:
			return bytes(size)
		path = self.parent()
		if any(self.h('parent_id')):
			data = Vhd(path).disk()
		else:
			with open(path, 'rb') as f:
				data = f.read()
		return data[:size] + bytes(max(0, size - len(data)))

	def disk(self):
		size = self.of('current_size')
		if self.of('type') == 2:
			return self.at(0, size)
		out = bytearray(self.below(size))
		block_size = self.h('block_size')
		bitmap_bytes = (block_size // 4096 + 511) // 512 * 512 or 512
		for block in range((size + block_size - 1) // block_size):
			place = self.entry(block) * 512
			if place == FREE * 512:
				continue
			bits = self.at(place, bitmap_bytes)
			data = self.at(place + bitmap_bytes, block_size)
			for s in range(min(block_size, size - block * block_size) // 512):
				if bits[s // 8] & 0x80 >> s % 8:
					start = block * block_size + s * 512
					out[start:start + 512] = data[s * 512:s * 512 + 512]
		return out

	def sectors(self, block):
		block_size = self.h('block_size')
		bits = self.at(self.entry(block) * 512, block_size // 4096 or 1)
		return sum(bin(b).count('1') for b in bits)

	def look(self, name):
		if name.startswith('bat['):
			return self.entry(int(name[4:-1]))
		part, name = name.split('.', 1)
		if part == 'header':
			return self.h(name)
		return get(self.end if part == 'end' else self.footer, FOOTER, name)

	def change(self, name, value):
		value = bytes.fromhex(value[1:]) if value[0] == 'x' else int(value, 0)
		if name.startswith('bat['):
			self.write(self.h('table_offset') + 4 * int(name[4:-1]),
				   struct.pack('>I', value))
			return
		part, name = name.split('.', 1)
		if part == 'header':
			put(self.header, HEADER, name, value)
			put(self.header, HEADER, 'checksum', checksum(self.header, 36))
			self.write(self.of('data_offset'), self.header)
			return
		at = self.of('data_offset')
		put(self.footer, FOOTER, name, value)
		if part != 'raw':
			put(self.footer, FOOTER, 'checksum', checksum(self.footer, 64))
		if self.footer is not self.end:
			self.write(0, self.footer)
		self.write(self.bytes - 512, self.footer)


def main(what, image, *args):
	vhd = Vhd(image, 'r+b' if what == 'set' else 'rb')
	if what == 'read':
		with open(args[0], 'wb') as f:
			f.write(vhd.disk())
	elif what == 'get':
		value = vhd.look(args[0])
		print(value.hex() if isinstance(value, bytes) else value)
	elif what == 'bits':
		print(vhd.sectors(int(args[0])))
	else:
		for arg in args:
			vhd.change(*arg.split('=', 1))


main(*sys.argv[1:])
