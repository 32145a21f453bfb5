// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * XDP on client-side devices: packets for a service get a backend as destination and go up the
 * stack, which routes them. Everything else goes up as it came.
 */
#include <uapi/linux/bpf.h>
#include "flow.h"
#include "rewrite.h"

static __always_inline struct service *service_lookup(const struct packet *packet)
{
	struct service_key key = {
		.port = packet->destination_port,
		.protocol = packet->protocol,
	};

	address_copy(&key.address, &packet->destination);
	return service_map.lookup(&key);
}

int xdp_balance(struct xdp_md *ctx)
{
	struct frame frame = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
		.length = ctx->data_end - ctx->data,
	};
	struct packet packet = {};
	struct flow_key key;
	struct service *service;
	struct target target;
	__u64 now;

	if (parse_packet(&frame, &packet))
		return XDP_PASS;
	service = service_lookup(&packet);
	if (!service) {
		if (tcp_is_first(&packet))
			reply_release(&packet);
		return XDP_PASS;
	}
	if (packet.fragment) {
		count_event(EVENT_FRAGMENT);
		return XDP_PASS;
	}
	flow_key_of(&key, &packet);
	now = bpf_ktime_get_ns();
	target = flow_follow(&key, &packet, now);
	if (!target.backend)
		target = flow_start(&key, &packet, service, now);
	if (!target.backend)
		return target.verdict;
	frame.data = (void *)(long)ctx->data;
	frame.end = (void *)(long)ctx->data_end;
	if (rewrite_destination(&frame, &packet, target.backend))
		return XDP_PASS;
	count_in(target.index, frame.length);
	if (packet.tcp_flags & (TCP_FIN | TCP_RST))
		flow_close(&key, 1, packet.tcp_flags, now);
	return XDP_PASS;
}
