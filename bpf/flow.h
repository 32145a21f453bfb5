/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The flow table: find, start, close and remove flows, and keep the active counts exact. */
#ifndef SHAPER_FLOW_H
#define SHAPER_FLOW_H

#include "count.h"
#include "maps.h"
#include "parsing.h"
#include "reply.h"
#include "schedule.h"

/* How many backends a new flow tries, where one is taken or has just gone away. */
#define CANDIDATES_MAX 8

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
	const __u8 mask = TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN;

	return packet->protocol == IPPROTO_UDP || (packet->tcp_flags & mask) == TCP_SYN;
}

/* NULL where user space took the backend away, or gave its index to another service. */
static __always_inline struct backend *flow_backend(const struct flow *flow)
{
	__u32 index = flow->backend;
	struct backend *backend = backend_map.lookup(&index);

	return backend && backend->port && backend->service == flow->service ? backend : NULL;
}

/* Forgets a flow, open or closing. */
static __always_inline void flow_remove(struct flow_key *key, __u32 index)
{
	struct backend *backend = backend_map.lookup(&index);

	if (backend)
		reply_remove(key, backend);
	if (!flow_map.delete(key))
		count_closed(index);
	closing_map.delete(key);
}

/*
 * The first FIN or RST of either side. The copy comes first, so that no packet finds the flow in
 * neither map; both sides may close at once, but only one of them deletes.
 */
static __always_inline void flow_close(struct flow_key *key, __u64 now)
{
	struct flow *flow = flow_map.lookup(key);
	struct flow closing;

	if (!flow)
		return;
	closing = *flow;
	closing.seen_ns = now;
	if (closing_map.update(key, &closing))
		return;
	if (!flow_map.delete(key))
		count_closed(closing.backend);
}

static __always_inline void flow_touch(struct flow *flow, const struct packet *packet, __u64 now)
{
	refresh(&flow->seen_ns, now);
	if (flow->state == FLOW_NEW && (packet->tcp_flags & (TCP_ACK | TCP_SYN)) == TCP_ACK)
		flow->state = FLOW_ESTABLISHED;
}

/*
 * The backend of the flow that a packet belongs to, if it has one and may stay there. What may
 * begin a flow leaves a backend that is down, and a connection that is closing.
 */
static __always_inline struct target flow_follow(struct flow_key *key, const struct packet *packet,
						 __u64 now)
{
	struct target target = {};
	struct flow *flow = flow_map.lookup(key);
	int may_open = flow_opens(packet), closing = 0;

	if (!flow && packet->protocol == IPPROTO_TCP) {
		flow = closing_map.lookup(key);
		closing = 1;
	}
	if (!flow)
		return target;
	target.backend = flow_backend(flow);
	target.index = flow->backend;
	if (!target.backend || (may_open && (closing || !(target.backend->flags & BACKEND_UP)))) {
		flow_remove(key, target.index);
		target.backend = NULL;
		return target;
	}
	flow_touch(flow, packet, now);
	return target;
}

/* One backend that takes new flows and whose reply entry could be made, from `position` on. */
static __always_inline struct target flow_candidate(const struct flow_key *key,
						    const struct service *service, __u32 position,
						    __u64 now)
{
	const __u16 takes = BACKEND_UP | BACKEND_ACCEPTS;
	struct target target = {};
	struct backend *backend;
	struct slot *slot;
	__u64 attempt;
	int error;

	target.verdict = -EAGAIN;
#pragma clang loop unroll(disable)
	for (attempt = 0; attempt < CANDIDATES_MAX; attempt++) {
		if (attempt >= service->count)
			break;
		slot = sched_slot(service, (position + attempt) % service->count);
		if (!slot || !slot->weight)
			continue;
		target.index = slot->backend;
		backend = backend_map.lookup(&target.index);
		if (!backend || (backend->flags & takes) != takes)
			continue;
		error = reply_claim(key, target.index, backend, now);
		if (!error) {
			target.backend = backend;
			break;
		}
		target.verdict = error;
	}
	return target;
}

/*
 * Enters a flow whose reply entry exists. Where another CPU was faster with the same flow, its
 * choice holds. `backend` NULL in the result: the table takes no more.
 */
static __always_inline struct target flow_insert(struct flow_key *key, struct target target,
						 __u32 state, __u64 now)
{
	struct flow flow = {
		.seen_ns = now,
		.backend = target.index,
		.service = target.backend->service,
		.state = state,
	};
	struct flow *other;

	if (!flow_map.insert(key, &flow)) {
		count_opened(target.index);
		return target;
	}
	other = flow_map.lookup(key);
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

/* Schedules a new flow. */
static __always_inline struct target flow_start(struct flow_key *key, const struct packet *packet,
						const struct service *service, __u64 now)
{
	int unavailable = service->unavailable == UNAVAILABLE_DROP ? XDP_DROP : XDP_PASS;
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
		return flow_refused(EVENT_UNAVAILABLE, unavailable);
	target = flow_candidate(key, service, position, now);
	if (!target.backend && target.verdict == -EAGAIN)
		return flow_refused(EVENT_UNAVAILABLE, unavailable);
	if (!target.backend && target.verdict == -EEXIST)
		return flow_refused(EVENT_COLLISION, XDP_DROP);
	if (target.backend)
		target = flow_insert(key, target, state, now);
	if (!target.backend)
		return flow_refused(EVENT_TABLE_FULL, XDP_DROP);
	return target;
}

#endif
