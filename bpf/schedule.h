/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pickers: which position of its schedule a service's new flow gets. Only schedulers that the
 * configuration uses are compiled in.
 */
#ifndef SHAPER_SCHEDULE_H
#define SHAPER_SCHEDULE_H

#include "hash.h"
#include "maps.h"

static __always_inline struct slot *sched_slot(const struct service *service, __u32 position)
{
	__u32 index = service->first + position;

	return slot_map.lookup(&index);
}

#ifdef WITH_ROUND_ROBIN
/*
 * Without fetching atomics (before 5.12) two CPUs may read the same turn; the ring still advances
 * by two.
 */
static __always_inline __u64 sched_turn(__u64 *cursor)
{
#ifdef WITH_ATOMIC_FETCH
	return __sync_fetch_and_add(cursor, 1);
#else
	__u64 turn = *cursor;

	__sync_fetch_and_add(cursor, 1);
	return turn;
#endif
}

static __always_inline int sched_round_robin(const struct service *service)
{
	__u32 id = service->id;
	__u64 *cursor = cursor_map.lookup(&id);

	return cursor ? (int)(sched_turn(cursor) % service->count) : -1;
}
#endif

#ifdef WITH_LEAST_CONNECTIONS
/* All ones where a < b, else 0; both below 2^63. */
static __always_inline __u64 sched_is_less(__u64 a, __u64 b)
{
	__u64 less = (__s64)(a - b) >> 63;

	asm volatile("" : "+r"(less)); /* or the compiler would make branches of it again */
	return less;
}

static __always_inline __u64 sched_choose(__u64 mask, __u64 yes, __u64 no)
{
	return no ^ ((yes ^ no) & mask);
}

/* active + 1; a count below zero is an error of the count, and is taken for zero. */
static __always_inline __u64 sched_load(__u64 active)
{
	__u64 below = (__s64)active >> 63;

	asm volatile("" : "+r"(below)); /* as in sched_is_less */
	return (active & ~below) + 1;
}

/*
 * The least (active + 1) / weight, compared by cross-multiplication. A weight is at most 2,000,000
 * (1000 in thousandths, doubled by steering), below 2^21, and a count is below 2^40, even if a flood
 * evicts a million flows a second and no sweep corrects it for ten days. So products are below 2^61,
 * and 2^40 / 1, which the first slot is compared with, is worse than anything. The loop counter is
 * 64 bits wide, because verifiers before 5.16 forget the value of a 32-bit spill and then see no
 * end of the loop.
 */
static __always_inline int sched_least_connections(const struct service *service)
{
	__u64 step, load, less, best = MAX_SLOTS, best_load = 1ULL << 40, best_weight = 1;
	__u32 id = service->id, start, position, index;
	__u64 *cursor = cursor_map.lookup(&id), *active;
	struct slot *slot;

	if (!cursor)
		return -1;
	start = *cursor % service->count;
#pragma clang loop unroll(disable)
	for (step = 0; step < MAX_BACKENDS_PER_SERVICE; step++) {
		if (step >= service->count)
			break;
		position = (start + (__u32)step) % service->count;
		slot = sched_slot(service, position);
		if (!slot)
			break;
		index = slot->backend;
		active = active_map.lookup(&index);
		if (!active)
			break;
		load = sched_load(*active);
		less = sched_is_less(load * best_weight, best_load * slot->weight);
		best = sched_choose(less, position, best);
		best_load = sched_choose(less, load, best_load);
		best_weight = sched_choose(less, slot->weight, best_weight);
	}
	if (best == MAX_SLOTS)
		return -1;
	*cursor = best + 1;
	return best;
}
#endif

/* For a flow that another gateway began: schedules that alone tell the backend. Or -1. */
static __always_inline int sched_find(const struct service *service, const struct flow_key *key)
{
#ifdef WITH_MAGLEV
	if (service->scheduler == SCHED_MAGLEV && service->count)
		return hash_flow(key, service->count);
#endif
#ifdef WITH_SOURCE_HASH
	if (service->scheduler == SCHED_SOURCE_HASH && service->count)
		return hash_source(key, service->count);
#endif
	return -1;
}

/* The position in its schedule that a service's new flow gets, or -1. */
static __always_inline int sched_pick(const struct service *service, const struct flow_key *key)
{
	if (!service->count)
		return -1;
#ifdef WITH_ROUND_ROBIN
	if (service->scheduler == SCHED_ROUND_ROBIN)
		return sched_round_robin(service);
#endif
#ifdef WITH_LEAST_CONNECTIONS
	if (service->scheduler == SCHED_LEAST_CONNECTIONS)
		return sched_least_connections(service);
#endif
	return sched_find(service, key);
}

static __always_inline int sched_is_stateless(const struct service *service)
{
	return service->scheduler == SCHED_MAGLEV || service->scheduler == SCHED_SOURCE_HASH;
}

#endif
