# SPDX-License-Identifier: GPL-2.0-or-later
# What all plugins have in common.  The include path holds the plugin header
# and common/, nothing else: a plugin knows neither cowd nor libdmu.
AM_CPPFLAGS = -I$(top_srcdir)/libcow/plugin-include
AM_CPPFLAGS += -I$(top_srcdir)/common/include
AM_CFLAGS = $(WARN_CFLAGS) -fvisibility=hidden
AM_LDFLAGS = -module -avoid-version -shared -no-undefined
PLUGIN_LIBS = $(top_builddir)/libcow/libcow.la
PLUGIN_LIBS += $(top_builddir)/common/libcommon.la
