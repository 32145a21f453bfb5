/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hash of maglev and source-hash: one multiply and fold per 8 bytes, then splitmix64's
 * finalizer. The seed is fixed, because two gateways must agree. Addresses and ports go in as they
 * lie in memory, so all gateways must be of one byte order.
 */
#ifndef SHAPER_HASH_H
#define SHAPER_HASH_H

#include "shared.h"

#define HASH_SEED 0x5348415045520001ULL
#define HASH_FACTOR 0x9e3779b97f4a7c15ULL

static __always_inline __u64 hash_fold(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * HASH_FACTOR;
	return hash ^ (hash >> 32);
}

static __always_inline __u64 hash_address(__u64 hash, const struct address *address)
{
	hash = hash_fold(hash, (__u64)address->word[0] << 32 | address->word[1]);
	return hash_fold(hash, (__u64)address->word[2] << 32 | address->word[3]);
}

/* 0 <= result < count, by the upper bits of the finished hash. */
static __always_inline __u32 hash_position(__u64 hash, __u32 count)
{
	hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9ULL;
	hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebULL;
	hash ^= hash >> 31;
	return ((hash >> 32) * count) >> 32;
}

static __always_inline __u32 hash_flow(const struct flow_key *key, __u32 count)
{
	__u64 hash = hash_address(HASH_SEED, &key->client);

	hash = hash_address(hash, &key->service);
	hash = hash_fold(hash, (__u64)key->client_port << 32 | (__u64)key->service_port << 16 |
				       key->protocol);
	return hash_position(hash, count);
}

static __always_inline __u32 hash_source(const struct flow_key *key, __u32 count)
{
	return hash_position(hash_address(HASH_SEED, &key->client), count);
}

#endif
