/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every map. Sizes are constants, so that a reload always finds the maps it had: only programs are
 * replaced. Names are at most 15 characters, because the kernel cuts them there.
 */
#ifndef SHAPER_MAPS_H
#define SHAPER_MAPS_H

#include "shared.h"

/*
 * Not preallocated: the kernel reuses a preallocated element at once, under the eyes of a program
 * that still reads it; without preallocation it is freed after an RCU grace period.
 */
BPF_F_TABLE("hash", struct service_key, struct service, service_map, MAX_SERVICE_KEYS,
	    BPF_F_NO_PREALLOC);
BPF_TABLE("array", __u32, struct backend, backend_map, MAX_BACKENDS);

/*
 * All schedule tables, each a region. A new table is written into free slots and becomes the
 * service's by one write to service_map; the old region is free from the next change on.
 */
BPF_TABLE("array", __u32, struct slot, slot_map, MAX_SLOTS);

/*
 * round-robin: flows scheduled so far. least-connections: the position after the last one chosen,
 * where the next scan begins, so that ties go round.
 */
BPF_TABLE("array", __u32, __u64, cursor_map, MAX_SERVICES);

/* tc classid of a service's packets, by service id; 0: the default class. */
BPF_TABLE("array", __u32, __u32, class_map, MAX_SERVICES);
BPF_TABLE("array", __u32, struct settings, settings_map, 1);
BPF_TABLE("array", __u32, struct timeouts, timeout_map, 1);

/*
 * A flow is in exactly one of flow_map (counted in active_map) and closing_map (not counted). One
 * packet, or the sweep, ends it: deletes it from flow_map and takes it out of the count (flow_claim).
 * reply_map's entry lives as long as its flow. One that outlived it (the flow was evicted) is swept,
 * and may be taken over before, as may that of a closing flow that is over: see reply.h. One that was
 * evicted itself is made again by the next packet of the client: see flow_touch.
 */
BPF_TABLE("lru_hash", struct flow_key, struct flow, flow_map, MAX_FLOWS);
BPF_TABLE("lru_hash", struct flow_key, struct flow, closing_map, MAX_CLOSING_FLOWS);
BPF_TABLE("lru_hash", struct reply_key, struct reply, reply_map, MAX_REPLIES);

/*
 * Flows in flow_map, by backend, and how many ended since (evicted ones not). Only programs write
 * them: user space never resets them.
 */
BPF_TABLE("array", __u32, __u64, active_map, MAX_BACKENDS);
BPF_TABLE("array", __u32, __u64, ended_map, MAX_BACKENDS);
BPF_TABLE("percpu_array", __u32, struct backend_counters, counter_map, MAX_BACKENDS);
BPF_TABLE("percpu_array", __u32, __u64, event_map, EVENT_COUNT);

#endif
