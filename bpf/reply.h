/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * reply_map: from what the routed packet looks like (client and backend) to the service's address.
 * One client port may talk to two services that share a backend; then both flows would look the
 * same behind the gateway, and the second one must take another backend. A TCP flow that is over
 * stands in nobody's way: neither in that of another service's flow, nor of a connection that the
 * client makes to the backend itself.
 */
#ifndef SHAPER_REPLY_H
#define SHAPER_REPLY_H

#include <uapi/asm-generic/errno-base.h>
#include "maps.h"
#include "parsing.h"

#define REFRESH_NS 1000000000ULL
/* After how long a client forgets a connection that only it has closed (Linux: tcp_fin_timeout). */
#define HALF_CLOSED_NS 60000000000ULL

/*
 * Whether it was time. `seen_ns` need not be exact, and a write per packet would make CPUs fight for
 * the cache line.
 */
static __always_inline int refresh(__u64 *seen_ns, __u64 now)
{
	if (now - *seen_ns <= REFRESH_NS)
		return 0;
	*seen_ns = now;
	return 1;
}

static __always_inline void address_copy(struct address *to, const struct address *from)
{
	__builtin_memcpy(to, from, sizeof(*to));
}

/* One comparison: see address_is_mapped. */
static __always_inline int address_equal(const struct address *a, const struct address *b)
{
	return !((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) | (a->word[2] ^ b->word[2]) |
		 (a->word[3] ^ b->word[3]));
}

static __always_inline void reply_key_of(struct reply_key *reply_key, const struct flow_key *key,
					 const struct backend *backend)
{
	__builtin_memset(reply_key, 0, sizeof(*reply_key));
	address_copy(&reply_key->client, &key->client);
	address_copy(&reply_key->backend, &backend->address);
	reply_key->client_port = key->client_port;
	reply_key->backend_port = backend->port;
	reply_key->protocol = key->protocol;
}

static __always_inline int reply_is_of(const struct reply *reply, const struct flow_key *key)
{
	return reply->port == key->service_port && address_equal(&reply->address, &key->service);
}

/* The flow that a reply entry belongs to. */
static __always_inline void reply_owner(struct flow_key *owner, const struct reply_key *reply_key,
					const struct reply *reply)
{
	__builtin_memset(owner, 0, sizeof(*owner));
	address_copy(&owner->client, &reply_key->client);
	address_copy(&owner->service, &reply->address);
	owner->client_port = reply_key->client_port;
	owner->service_port = reply->port;
	owner->protocol = reply_key->protocol;
}

/*
 * Whether a closing flow's client port is free for another flow, as a port in TIME_WAIT is. Signed,
 * because another CPU may have seen a packet after `now` was read.
 */
static __always_inline int closing_is_over(const struct flow *flow, __u64 now)
{
	return (flow->client_closed & flow->backend_closed) ||
	       (__s64)(now - flow->seen_ns) > (__s64)HALF_CLOSED_NS;
}

/*
 * Whether a reply entry may become another flow's: 0, or -EEXIST while its flow, `owner`, lives. An
 * entry whose flow was evicted, or went to another backend, is stale. A flow that is over is
 * forgotten: what still comes of it must not get into the new connection.
 */
static __always_inline int reply_vacate(struct flow_key *owner, const struct reply *reply,
					__u64 now)
{
	struct flow *flow = flow_map.lookup(owner);

	if (flow)
		return flow->backend == reply->backend ? -EEXIST : 0;
	flow = closing_map.lookup(owner);
	if (!flow || flow->backend != reply->backend)
		return 0;
	if (!closing_is_over(flow, now))
		return -EEXIST;
	closing_map.delete(owner);
	return 0;
}

/*
 * A new flow's reply entry in the making. All that does not depend on the backend is filled in once,
 * before the loop over backends, and every turn uses the same bytes: see "Traps met" in README.md.
 */
struct claim {
	struct reply_key key;
	struct reply reply;
	struct flow_key owner; /* whose entry stands in the way */
};

static __always_inline void claim_begin(struct claim *claim, const struct flow_key *key, __u64 now)
{
	__builtin_memset(claim, 0, sizeof(*claim));
	address_copy(&claim->key.client, &key->client);
	claim->key.client_port = key->client_port;
	claim->key.protocol = key->protocol;
	address_copy(&claim->reply.address, &key->service);
	claim->reply.port = key->service_port;
	claim->reply.seen_ns = now;
	address_copy(&claim->owner.client, &key->client);
	claim->owner.client_port = key->client_port;
	claim->owner.protocol = key->protocol;
}

/* Makes the entry at a backend: 0, -EEXIST where another flow lives there, or an error. */
static __always_inline int claim_take(struct claim *claim, const struct flow_key *key, __u32 index,
				      const struct backend *backend, __u64 now)
{
	struct reply *other;

	address_copy(&claim->key.backend, &backend->address);
	claim->key.backend_port = backend->port;
	claim->reply.backend = index;
	claim->reply.service = backend->service;
	if (!reply_map.insert(&claim->key, &claim->reply))
		return 0;
	other = reply_map.lookup(&claim->key);
	if (other && !reply_is_of(other, key)) {
		address_copy(&claim->owner.service, &other->address);
		claim->owner.service_port = other->port;
		if (reply_vacate(&claim->owner, other, now))
			return -EEXIST;
	}
	return reply_map.update(&claim->key, &claim->reply);
}

/*
 * Makes a flow's reply entry again where the LRU has evicted it: without one the backend's answers
 * would leave untranslated for as long as the flow lives. What a living flow has instead stays.
 */
static __always_inline void reply_keep(const struct flow_key *key, __u32 index,
				       const struct backend *backend, __u64 now)
{
	struct reply *reply;
	struct claim claim;

	claim_begin(&claim, key, now);
	address_copy(&claim.key.backend, &backend->address);
	claim.key.backend_port = backend->port;
	reply = reply_map.lookup(&claim.key);
	if (!reply || !reply_is_of(reply, key) || reply->backend != index)
		claim_take(&claim, key, index, backend, now);
}

/* Removes the reply entry of a flow, unless it has become another flow's. */
static __always_inline void reply_remove(const struct flow_key *key, const struct backend *backend)
{
	struct reply_key reply_key;
	struct reply *reply;

	reply_key_of(&reply_key, key, backend);
	reply = reply_map.lookup(&reply_key);
	if (reply && reply_is_of(reply, key))
		reply_map.delete(&reply_key);
}

/*
 * For a first SYN to no service: where the client's port has just been a service's flow to the very
 * backend that it now connects to itself, the answers are no longer the service's. While that flow
 * lives, nobody could tell the answers apart, and it keeps them.
 */
static __always_inline void reply_release(const struct packet *packet)
{
	struct reply_key reply_key = {};
	struct flow_key owner;
	struct reply *reply;

	address_copy(&reply_key.client, &packet->source);
	address_copy(&reply_key.backend, &packet->destination);
	reply_key.client_port = packet->source_port;
	reply_key.backend_port = packet->destination_port;
	reply_key.protocol = packet->protocol;
	reply = reply_map.lookup(&reply_key);
	if (!reply)
		return;
	reply_owner(&owner, &reply_key, reply);
	if (!reply_vacate(&owner, reply, bpf_ktime_get_ns()))
		reply_map.delete(&reply_key);
}

#endif
