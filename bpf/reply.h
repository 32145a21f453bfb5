/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * reply_map: from what the routed packet looks like (client and backend) to the service's address.
 * One client port may talk to two services that share a backend; then both flows would look the
 * same behind the gateway, and the second one must take another backend.
 */
#ifndef SHAPER_REPLY_H
#define SHAPER_REPLY_H

#include <uapi/asm-generic/errno-base.h>
#include "maps.h"

#define REFRESH_NS 1000000000ULL

/* `seen_ns` need not be exact, and a write per packet would make CPUs fight for the cache line. */
static __always_inline void refresh(__u64 *seen_ns, __u64 now)
{
	if (now - *seen_ns > REFRESH_NS)
		*seen_ns = now;
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

/* An entry whose flow was evicted, or went to another backend, is stale. */
static __always_inline int reply_is_live(struct reply_key *reply_key, struct reply *reply)
{
	struct flow_key owner;
	struct flow *flow;

	reply_owner(&owner, reply_key, reply);
	flow = flow_map.lookup(&owner);
	if (!flow)
		flow = closing_map.lookup(&owner);
	return flow && flow->backend == reply->backend;
}

/* Makes the reply entry of a new flow: 0, -EEXIST where another flow lives there, or an error. */
static __always_inline int reply_claim(const struct flow_key *key, __u32 index,
				       const struct backend *backend, __u64 now)
{
	struct reply_key reply_key;
	struct reply reply = {
		.port = key->service_port,
		.backend = index,
		.service = backend->service,
		.seen_ns = now,
	};
	struct reply *other;

	reply_key_of(&reply_key, key, backend);
	address_copy(&reply.address, &key->service);
	if (!reply_map.insert(&reply_key, &reply))
		return 0;
	other = reply_map.lookup(&reply_key);
	if (other && !reply_is_of(other, key) && reply_is_live(&reply_key, other))
		return -EEXIST;
	return reply_map.update(&reply_key, &reply);
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

#endif
