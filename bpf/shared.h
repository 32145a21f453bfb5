/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Structs and limits that kernel and user space share. Python never mirrors them by hand: it uses
 * the types that bcc derives from the maps in maps.h.
 *
 * Addresses are 16 bytes in network byte order; an IPv4 address stands as ::ffff:a.b.c.d, so the
 * family is part of every key. Ports are in network byte order (__be16). Everything else is in
 * host order. All padding is explicit and zero, because hash maps compare whole keys.
 */
#ifndef SHAPER_SHARED_H
#define SHAPER_SHARED_H

#include <uapi/linux/types.h>

#define MAX_SERVICES 512
#define MAX_SERVICE_KEYS 8192 /* a service with a list of ports has a key for each */
#define MAX_BACKENDS 4096
#define MAX_BACKENDS_PER_SERVICE 256
#define MAX_SLOTS (1 << 20) /* all schedule tables together, twice: see slot_map */
#define MAX_FLOWS (1 << 18)
#define MAX_CLOSING_FLOWS (1 << 16)
/*
 * Room for the reply entries of both maps 1.6 times: what is over is in the way only until the next
 * sweep, and an LRU map evicts before it is quite full. 140 bytes each, 72 MiB together.
 */
#define MAX_REPLIES (1 << 19)

/* enum scheduler: service.scheduler. The order is the contract with shaper/kernel/tables.py. */
#define SCHED_ROUND_ROBIN 0
#define SCHED_LEAST_CONNECTIONS 1
#define SCHED_MAGLEV 2
#define SCHED_SOURCE_HASH 3

/* service.unavailable: what a new flow gets when no backend is up. */
#define UNAVAILABLE_REJECT 0 /* passed up: the VIP is local, nobody listens, the stack says no */
#define UNAVAILABLE_DROP 1

/* backend.flags */
#define BACKEND_UP 1 /* healthy: flows that exist may go on */
#define BACKEND_ACCEPTS 2 /* takes new flows (not drained, not disabled) */

struct address {
	__be32 word[4];
};
_Static_assert(sizeof(struct address) == 16, "address");

struct service_key {
	struct address address;
	__be16 port;
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad;
};
_Static_assert(sizeof(struct service_key) == 20, "service_key");

/* Replaced whole (a hash map swaps the element), so first/count are never seen torn. */
struct service {
	__u32 id; /* index into cursor_map and class_map */
	__u32 first; /* the service's schedule: slot_map[first .. first + count) */
	__u32 count; /* 0: no backend takes new flows */
	__u8 scheduler;
	__u8 unavailable;
	__u8 pad[2];
};
_Static_assert(sizeof(struct service) == 16, "service");

/*
 * round-robin: the ring in order, each slot one turn. maglev, source-hash: the hash table.
 * least-connections: one slot per backend, weight is compared (thousandths of the configured unit).
 * A slot of weight 0 never gets a flow, whatever the scheduler.
 */
struct slot {
	__u32 backend;
	__u32 weight;
};
_Static_assert(sizeof(struct slot) == 8, "slot");

struct backend {
	struct address address;
	__be16 port;
	__u16 flags;
	__u32 service; /* id of the service it belongs to */
	__u32 weight; /* effective weight in thousandths, for `status` and restarts; schedules hold theirs */
};
_Static_assert(sizeof(struct backend) == 28, "backend");

/* The client's side of a flow: what arrives at the VIP. */
struct flow_key {
	struct address client;
	struct address service;
	__be16 client_port;
	__be16 service_port;
	__u8 protocol;
	__u8 pad[3];
};
_Static_assert(sizeof(struct flow_key) == 40, "flow_key");

#define FLOW_NEW 0 /* TCP: handshake not finished by the client; UDP: always */
#define FLOW_ESTABLISHED 1
#define FLOW_REPEATS \
	2 /* TCP, in closing_map: the client reset what answered its SYN, and repeats it */

struct flow {
	__u64 seen_ns; /* CLOCK_MONOTONIC of a recent packet; refreshed at most once a second */
	__u32 backend;
	__u32 service;
	__u32 state;
	__u8 client_closed; /* in closing_map: which sides sent FIN; a RST closes both */
	__u8 backend_closed;
	__u16 pad;
	__u64 begun_ns; /* CLOCK_MONOTONIC; in flow_map 0 once somebody has claimed to end it */
};
_Static_assert(sizeof(struct flow) == 32, "flow");

/* The backend's side of the same flow: what the routed packet looks like in both directions. */
struct reply_key {
	struct address client;
	struct address backend;
	__be16 client_port;
	__be16 backend_port;
	__u8 protocol;
	__u8 pad[3];
};
_Static_assert(sizeof(struct reply_key) == 40, "reply_key");

struct reply {
	struct address address; /* the service's, to be restored as source */
	__be16 port;
	__u16 pad;
	__u32 backend;
	__u32 service;
	__u32 pad2;
	__u64 seen_ns;
};
_Static_assert(sizeof(struct reply) == 40, "reply");

/* Per CPU and backend. Bytes include the Ethernet header. In: client to backend. */
struct backend_counters {
	__u64 new_flows;
	__u64 packets_in;
	__u64 bytes_in;
	__u64 packets_out;
	__u64 bytes_out;
};

/* settings_map[0] */
struct settings {
	__u32 default_class; /* tc classid for packets of no class; 0: leave skb->priority alone */
	__u32 pad;
};

/* timeout_map[0]: after how long without a packet flow_sweep removes a flow, in nanoseconds. */
struct timeouts {
	__u64 syn; /* TCP, FLOW_NEW */
	__u64 established; /* TCP, FLOW_ESTABLISHED */
	__u64 closing; /* in closing_map, where one side has not closed */
	__u64 over; /* in closing_map, where both have; also a reply entry without a flow */
	__u64 udp;
};
_Static_assert(sizeof(struct timeouts) == 40, "timeouts");

/*
 * The input "packet" of flow_sweep is an array of struct flow_key, that of reply_sweep one of struct
 * reply_key, that of active_correct one of struct correction; at most so many.
 */
#define SWEEP_KEYS_MAX 16

/* What is to be added to a backend's count in active_map. In no map: Python writes two numbers. */
struct correction {
	__u64 backend;
	__s64 flows;
};
_Static_assert(sizeof(struct correction) == 16, "correction");

/* event_map: per CPU, what happened to packets that were for a service but got no backend. */
#define EVENT_UNAVAILABLE 0 /* no backend takes new flows */
#define EVENT_NO_FLOW 1 /* TCP without SYN that no flow knows, scheduler cannot tell: passed up */
#define EVENT_COLLISION 2 /* every candidate backend already has this client port: dropped */
#define EVENT_TABLE_FULL 3 /* the kernel refused a flow entry: dropped */
#define EVENT_FRAGMENT 4 /* the first fragment of a datagram for a service: passed up */
#define EVENT_COUNT 8

#endif
