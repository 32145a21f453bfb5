/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Counters. Those per CPU need no atomics: programs of one CPU do not interrupt each other. */
#ifndef SHAPER_COUNT_H
#define SHAPER_COUNT_H

#include "maps.h"

static __always_inline void count_event(__u32 event)
{
	__u64 *count = event_map.lookup(&event);

	if (count)
		*count += 1;
}

static __always_inline void count_in(__u32 backend, __u64 bytes)
{
	struct backend_counters *counters = counter_map.lookup(&backend);

	if (counters) {
		counters->packets_in += 1;
		counters->bytes_in += bytes;
	}
}

static __always_inline void count_out(__u32 backend, __u64 packets, __u64 bytes)
{
	struct backend_counters *counters = counter_map.lookup(&backend);

	if (counters) {
		counters->packets_out += packets;
		counters->bytes_out += bytes;
	}
}

static __always_inline void count_new(__u32 backend)
{
	struct backend_counters *counters = counter_map.lookup(&backend);

	if (counters)
		counters->new_flows += 1;
}

static __always_inline void count_opened(__u32 backend)
{
	__u64 *active = active_map.lookup(&backend);

	if (active)
		__sync_fetch_and_add(active, 1);
}

static __always_inline void count_closed(__u32 *backend)
{
	__u64 *active = active_map.lookup(backend), *ended = ended_map.lookup(backend);

	if (ended) /* first, so that who reads it last misses no change of `active` */
		__sync_fetch_and_add(ended, 1);
	if (active)
		__sync_fetch_and_add(active, -1);
}

#endif
