// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Removes idle flows, and replies that have none. Run by BPF_PROG_TEST_RUN only: user space reads
 * the tables in batches, and gives the keys of what looks idle as a "packet". A packet may have come
 * since, so everything is looked at again here.
 */
#include <uapi/linux/bpf.h>
#include "flow.h"

/* Signed, because another CPU may have seen a packet after `now` was read. */
static __always_inline int sweep_is_idle(__u64 seen_ns, __u64 now, __u64 timeout_ns)
{
	return (__s64)(now - seen_ns) > (__s64)timeout_ns;
}

static __always_inline __u64 sweep_timeout(const struct timeouts *timeouts, __u8 protocol,
					   __u32 state)
{
	if (protocol == IPPROTO_UDP)
		return timeouts->udp;
	return state == FLOW_NEW ? timeouts->syn : timeouts->established;
}

static __always_inline __u64 sweep_closing_timeout(const struct timeouts *timeouts,
						   const struct flow *flow)
{
	return flow->client_closed & flow->backend_closed ? timeouts->over : timeouts->closing;
}

/* Whether nothing was heard of the backend either. */
static __always_inline int sweep_reply_idle(const struct flow_key *key, __u32 *index, __u64 now,
					    __u64 timeout_ns)
{
	struct backend *backend = backend_map.lookup(index);
	struct reply_key reply_key;
	struct reply *reply;

	if (!backend)
		return 1;
	reply_key_of(&reply_key, key, backend);
	reply = reply_map.lookup(&reply_key);
	return !reply || !reply_is_of(reply, key) || sweep_is_idle(reply->seen_ns, now, timeout_ns);
}

static __always_inline int sweep_flow(struct flow_key *key, const struct timeouts *timeouts,
				      __u64 now)
{
	struct flow *flow = flow_map.lookup(key);
	__u64 timeout_ns, begun_ns;
	int closing = !flow;
	__u32 index;

	if (flow) {
		timeout_ns = sweep_timeout(timeouts, key->protocol, flow->state);
	} else {
		flow = closing_map.lookup(key);
		if (!flow)
			return 0;
		timeout_ns = sweep_closing_timeout(timeouts, flow);
	}
	begun_ns = flow->begun_ns;
	index = flow->backend;
	if (!sweep_is_idle(flow->seen_ns, now, timeout_ns))
		return 0;
	if (!sweep_reply_idle(key, &index, now, timeout_ns))
		return 0;
	return flow_remove(key, flow, begun_ns, closing, &index);
}

/* Returns how many flows were removed. */
int flow_sweep(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct flow_key *next = (void *)(long)ctx->data;
	__u64 now = bpf_ktime_get_ns(), count;
	__u32 zero = 0, removed = 0;
	struct timeouts *timeouts = timeout_map.lookup(&zero);
	struct flow_key key;

	if (!timeouts)
		return 0;
#pragma clang loop unroll(disable)
	for (count = 0; count < SWEEP_KEYS_MAX; count++) {
		if ((void *)(next + 1) > end)
			break;
		key = *next++;
		removed += sweep_flow(&key, timeouts, now);
	}
	return removed;
}

/*
 * An orphan's flow was evicted, or went to another backend. A young one may be a flow's in the making
 * (flow_start), and one that the backend still uses may go on.
 */
static __always_inline int sweep_reply(struct reply_key *key, __u64 now, __u64 timeout_ns)
{
	struct reply *reply = reply_map.lookup(key);
	struct flow_key owner;
	struct flow *flow;

	if (!reply || !sweep_is_idle(reply->seen_ns, now, timeout_ns))
		return 0;
	reply_owner(&owner, key, reply);
	flow = flow_map.lookup(&owner);
	if (!flow)
		flow = closing_map.lookup(&owner);
	if (flow && flow->backend == reply->backend)
		return 0;
	return !reply_map.delete(key);
}

/* Returns how many reply entries without a flow were removed. */
int reply_sweep(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct reply_key *next = (void *)(long)ctx->data;
	__u64 now = bpf_ktime_get_ns(), count;
	__u32 zero = 0, removed = 0;
	struct timeouts *timeouts = timeout_map.lookup(&zero);
	struct reply_key key;

	if (!timeouts)
		return 0;
#pragma clang loop unroll(disable)
	for (count = 0; count < SWEEP_KEYS_MAX; count++) {
		if ((void *)(next + 1) > end)
			break;
		key = *next++;
		removed += sweep_reply(&key, now, timeouts->over);
	}
	return removed;
}

/*
 * Puts counts right that missed evictions. User space knows how far they are off, but a packet may
 * count meanwhile, so only an atomic addition will do. Returns how many counts were corrected.
 */
int active_correct(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct correction *next = (void *)(long)ctx->data;
	__u64 count, *active;
	__u32 index, corrected = 0;

#pragma clang loop unroll(disable)
	for (count = 0; count < SWEEP_KEYS_MAX; count++) {
		if ((void *)(next + 1) > end)
			break;
		index = next->backend;
		active = active_map.lookup(&index);
		if (active) {
			__sync_fetch_and_add(active, next->flows);
			corrected++;
		}
		next++;
	}
	return corrected;
}
