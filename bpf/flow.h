/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The flow table: find, start, close and remove flows, and keep the active counts exact. */
#ifndef SHAPER_FLOW_H
#define SHAPER_FLOW_H

#include "count.h"
#include "maps.h"
#include "parsing.h"
#include "reply.h"
#include "schedule.h"

/*
 * How many slots a new flow walks from the chosen one on, where backends are taken or have just gone
 * away. Slots of a backend that was tried are skipped: hash tables and rings repeat backends.
 */
#define CANDIDATE_SLOTS_MAX 32

/* Where a packet goes. `backend` NULL: nowhere, and `verdict` says what happens instead. */
struct target {
	struct backend *backend;
	__u32 index;
	int verdict;
};

static __always_inline void flow_key_of(struct flow_key *key, const struct packet *packet)
{
	__builtin_memset(key, 0, sizeof(*key));
	address_copy(&key->client, &packet->source);
	address_copy(&key->service, &packet->destination);
	key->client_port = packet->source_port;
	key->service_port = packet->destination_port;
	key->protocol = packet->protocol;
}

/* Whether a packet may begin a flow: UDP, or TCP's first SYN. */
static __always_inline int flow_opens(const struct packet *packet)
{
	return packet->protocol == IPPROTO_UDP || tcp_is_first(packet);
}

/* NULL where user space took the backend away, or gave its index to another service. */
static __always_inline struct backend *flow_backend(const struct flow *flow)
{
	__u32 index = flow->backend;
	struct backend *backend = backend_map.lookup(&index);

	return backend && backend->port && backend->service == flow->service ? backend : NULL;
}

/*
 * Whether the caller is the one to end a flow of flow_map: to count it and to delete it. By the time
 * of a delete another CPU may have ended this flow and begun a new one under its key, even in the
 * same memory. So `begun_ns`, read when the flow was found, tells which one is meant, and only one
 * takes it away.
 */
static __always_inline int flow_claim(struct flow *flow, __u64 begun_ns)
{
#ifdef WITH_ATOMIC_FETCH
	return begun_ns && __sync_val_compare_and_swap(&flow->begun_ns, begun_ns, 0) == begun_ns;
#else
	return 1;
#endif
}

/*
 * Deletes a flow that was claimed. 0: it leaves the count. Without fetching atomics everybody has
 * claimed it, and the delete that succeeds is the one that counts, whosoever flow it meets.
 */
static __always_inline int flow_delete(struct flow_key *key)
{
#ifdef WITH_ATOMIC_FETCH
	flow_map.delete(key); /* may fail: the LRU was faster, but it does not count */
	return 0;
#else
	return flow_map.delete(key);
#endif
}

static __always_inline int flow_is_ending(const struct flow *flow)
{
	return !flow->begun_ns;
}

/* Forgets what is known of a flow by its backend: the reply entry, and what is in closing_map. */
static __always_inline void flow_forget(struct flow_key *key, __u32 *index)
{
	struct backend *backend = backend_map.lookup(index);

	if (backend)
		reply_remove(key, backend);
	closing_map.delete(key);
}

/*
 * Removes a flow of flow_map, or of closing_map (`closing`), unless another CPU does; returns
 * whether. `index` is not copied: see "Traps met" in README.md.
 */
static __always_inline int flow_remove(struct flow_key *key, struct flow *flow, __u64 begun_ns,
				       int closing, __u32 *index)
{
	if (!closing && !flow_claim(flow, begun_ns))
		return 0;
	flow_forget(key, index);
	if (!closing && !flow_delete(key))
		count_closed(index);
	return 1;
}

/*
 * A FIN or RST; the first one of either side ends the flow's time in flow_map. The copy comes first,
 * so that no packet finds the flow in neither map. Both sides may close at once, but only one of them
 * makes the copy, and only one deletes and counts.
 */
static __always_inline void flow_close(struct flow_key *key, int by_client, __u8 tcp_flags,
				       __u64 now)
{
	struct flow *flow = flow_map.lookup(key), *closing, copy;

	if (flow) {
		copy = *flow;
		copy.seen_ns = now;
		if (by_client && (tcp_flags & TCP_RST) && copy.state == FLOW_NEW)
			copy.state = FLOW_REPEATS;
		closing_map.insert(key, &copy);
	}
	closing = closing_map.lookup(key);
	if (!closing)
		return;
	if (by_client || (tcp_flags & TCP_RST))
		closing->client_closed = 1;
	if (!by_client || (tcp_flags & TCP_RST))
		closing->backend_closed = 1;
	if (flow && flow_claim(flow, copy.begun_ns) && !flow_delete(key))
		count_closed(&copy.backend);
}

/*
 * Where the backend still remembers an older connection of this client port (TIME_WAIT), it answers
 * a SYN with an ACK for that one; the client resets it and repeats its SYN (RFC 9293, 3.10.7). That
 * SYN belongs to the backend chosen at first: another choice would cost a turn, and perhaps meet an
 * older connection as well.
 */
static __always_inline void flow_reopen(struct flow_key *key, const struct flow *closing, __u64 now)
{
	struct flow flow = {
		.seen_ns = now,
		.backend = closing->backend,
		.service = closing->service,
		.begun_ns = now,
	};

	if (!flow_map.insert(key, &flow))
		count_opened(flow.backend);
	closing_map.delete(key);
}

/* At most once a second also a look whether its reply entry is still there. */
static __always_inline void flow_touch(const struct flow_key *key, struct flow *flow,
				       const struct target *target, const struct packet *packet,
				       __u64 now)
{
	if (refresh(&flow->seen_ns, now))
		reply_keep(key, target->index, target->backend, now);
	if (flow->state == FLOW_NEW && (packet->tcp_flags & (TCP_ACK | TCP_SYN)) == TCP_ACK)
		flow->state = FLOW_ESTABLISHED;
}

/* Whether a packet that may begin a flow stays with the one that its client port has. */
static __always_inline int flow_keeps(const struct flow *flow, const struct backend *backend,
				      int closing)
{
	return (backend->flags & BACKEND_UP) && (!closing || flow->state == FLOW_REPEATS);
}

/*
 * The backend of the flow that a packet belongs to, if it has one and may stay there. What may
 * begin a flow leaves a backend that is down, and, but for a repeated SYN, a connection that closes.
 */
static __always_inline struct target flow_follow(struct flow_key *key, const struct packet *packet,
						 __u64 now)
{
	struct target target = {};
	struct flow *flow = flow_map.lookup(key);
	int may_open = flow_opens(packet), closing = 0;
	__u64 begun_ns;

	if (!flow && packet->protocol == IPPROTO_TCP) {
		flow = closing_map.lookup(key);
		closing = 1;
	}
	if (!flow)
		return target;
	begun_ns = flow->begun_ns;
	target.backend = flow_backend(flow);
	target.index = flow->backend;
	if (!target.backend || (may_open && !flow_keeps(flow, target.backend, closing))) {
		flow_remove(key, flow, begun_ns, closing, &target.index);
		target.backend = NULL;
	} else if (may_open && closing) {
		flow_reopen(key, flow, now);
	} else {
		flow_touch(key, flow, &target, packet, now);
	}
	return target;
}

/*
 * One backend that takes new flows and whose reply entry could be made, from `position` on. Without
 * one `verdict` says whether any takes new flows: -EEXIST, or -EAGAIN.
 */
static __always_inline struct target flow_candidate(const struct flow_key *key,
						    const struct service *service, __u32 position,
						    __u64 now)
{
	const __u16 takes = BACKEND_UP | BACKEND_ACCEPTS;
	struct target target = {};
	struct backend *backend;
	struct claim claim;
	struct slot *slot;
	__u64 step, tried = 0, bit;

	claim_begin(&claim, key, now);
#pragma clang loop unroll(disable)
	for (step = 0; step < CANDIDATE_SLOTS_MAX; step++) {
		if (step >= service->count)
			break;
		slot = sched_slot(service, (position + step) % service->count);
		if (!slot || !slot->weight)
			continue;
		target.index = slot->backend;
		bit = 1ULL << (target.index %
			       64); /* a service's indices mostly follow each other */
		backend = backend_map.lookup(&target.index);
		if ((tried & bit) || !backend || (backend->flags & takes) != takes)
			continue;
		tried |= bit;
		if (!claim_take(&claim, key, target.index, backend, now)) {
			target.backend = backend;
			return target;
		}
	}
	target.verdict = tried ? -EEXIST : -EAGAIN;
	return target;
}

/*
 * Enters a flow whose reply entry exists. Where another CPU was faster with the same flow, its
 * choice holds. `backend` NULL in the result: the table takes no more, or another CPU is just about
 * to delete an older flow, so that the packet will have to be sent again.
 */
static __always_inline struct target flow_insert(struct flow_key *key, struct target target,
						 __u32 state, __u64 now)
{
	struct flow flow = {
		.seen_ns = now,
		.backend = target.index,
		.service = target.backend->service,
		.state = state,
		.begun_ns = now,
	};
	struct flow *other;

	if (!flow_map.insert(key, &flow)) {
		count_opened(target.index);
		count_new(target.index);
		return target;
	}
	other = flow_map.lookup(key);
	if (other && flow_is_ending(other))
		other = NULL;
	if (other && other->backend == target.index)
		return target;
	reply_remove(key, target.backend);
	target.backend = other ? flow_backend(other) : NULL;
	target.index = other ? other->backend : 0;
	return target;
}

static __always_inline struct target flow_refused(__u32 event, int verdict)
{
	struct target nowhere = { .verdict = verdict };

	count_event(event);
	return nowhere;
}

static __always_inline struct target flow_unavailable(const struct service *service)
{
	int drop = service->unavailable == UNAVAILABLE_DROP;

	return flow_refused(EVENT_UNAVAILABLE, drop ? XDP_DROP : XDP_PASS);
}

/* Schedules a new flow. */
static __always_inline struct target flow_start(struct flow_key *key, const struct packet *packet,
						const struct service *service, __u64 now)
{
	__u32 state = FLOW_NEW;
	struct target target;
	int position;

	if (!flow_opens(packet)) {
		if (!sched_is_stateless(service))
			return flow_refused(EVENT_NO_FLOW, XDP_PASS);
		state = FLOW_ESTABLISHED;
		position = sched_find(service, key);
	} else {
		position = sched_pick(service, key);
	}
	if (position < 0)
		return flow_unavailable(service);
	target = flow_candidate(key, service, position, now);
	if (!target.backend && target.verdict == -EAGAIN)
		return flow_unavailable(service);
	if (!target.backend)
		return flow_refused(EVENT_COLLISION, XDP_DROP);
	target = flow_insert(key, target, state, now);
	if (!target.backend)
		return flow_refused(EVENT_TABLE_FULL, XDP_DROP);
	return target;
}

#endif
