// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * clsact egress: replies get the service's address back, and every packet its HTB class through
 * skb->priority. The verdict is TC_ACT_UNSPEC, so that other filters on the device still see the
 * packet, and both programs may stand on one device.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/pkt_cls.h>
#include "flow.h"
#include "restore.h"

#define HANDLE_MAJOR 0x5348
#define NEXTHDR_ICMPV6 58
#define ND_ROUTER_SOLICITATION 133 /* include/net/ndisc.h is not a UAPI header */
#define ND_REDIRECT 137
#define PULL_MAX 256 /* all headers of any packet that a balanced flow has */

/* Headers of an skb may lie outside its linear part, where programs cannot read them. */
static __always_inline int skb_parse(struct __sk_buff *skb, struct frame *frame,
				     struct packet *packet)
{
	__u32 wanted = skb->len < PULL_MAX ? skb->len : PULL_MAX;

	if (skb->data_end - skb->data < wanted && bpf_skb_pull_data(skb, wanted))
		return -1;
	frame->data = (void *)(long)skb->data;
	frame->end = (void *)(long)skb->data_end;
	frame->length = skb->len;
	frame->segments = skb->gso_segs;
	return parse_packet(frame, packet) || packet->fragment;
}

static __always_inline __u32 default_class(void)
{
	__u32 zero = 0;
	struct settings *settings = settings_map.lookup(&zero);

	return settings ? settings->default_class : 0;
}

/* ARP and IPv6's neighbour discovery (RFC 4861): without them nothing else gets anywhere. */
static __always_inline int skb_finds_neighbour(struct __sk_buff *skb)
{
	const __u32 network = ETH_HLEN, transport = ETH_HLEN + sizeof(struct ipv6hdr);
	__u8 next, type;

	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return 1;
	if (skb->protocol != bpf_htons(ETH_P_IPV6) ||
	    bpf_skb_load_bytes(skb, network + offsetof(struct ipv6hdr, nexthdr), &next,
			       sizeof(next)) ||
	    next != NEXTHDR_ICMPV6 || bpf_skb_load_bytes(skb, transport, &type, sizeof(type)))
		return 0;
	return type >= ND_ROUTER_SOLICITATION && type <= ND_REDIRECT;
}

/*
 * Packets of no flow keep a class of this tree that somebody else gave them. Neighbours are found
 * past all classes, through the queue that HTB has for packets that name the root itself
 * (htb_classify(): HTB_DIRECT), so that a full default class does not make hosts unreachable.
 */
static __always_inline int skb_unknown(struct __sk_buff *skb)
{
	__u32 class = default_class();

	if (class && skb->priority >> 16 != HANDLE_MAJOR)
		skb->priority = skb_finds_neighbour(skb) ? HANDLE_MAJOR << 16 : class;
	return TC_ACT_UNSPEC;
}

static __always_inline void skb_classify(struct __sk_buff *skb, __u32 service)
{
	__u32 *chosen = class_map.lookup(&service);
	__u32 class = chosen && *chosen ? *chosen : default_class();

	if (class)
		skb->priority = class;
}

/* What goes over the wire: every segment of a GSO packet carries the headers. */
static __always_inline void skb_count(const struct frame *frame, const struct packet *packet,
				      __u32 backend)
{
	__u32 segments = frame->segments ? frame->segments : 1;

	count_out(backend, segments, frame->length + (__u64)(segments - 1) * packet->payload);
}

int classify_client(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct frame frame = {};
	struct reply_key key = {};
	struct flow_key owner;
	struct reply *reply;
	__u64 now;

	if (skb_parse(skb, &frame, &packet))
		return skb_unknown(skb);
	address_copy(&key.client, &packet.destination);
	address_copy(&key.backend, &packet.source);
	key.client_port = packet.destination_port;
	key.backend_port = packet.source_port;
	key.protocol = packet.protocol;
	reply = reply_map.lookup(&key);
	if (!reply)
		return skb_unknown(skb);
	now = bpf_ktime_get_ns();
	refresh(&reply->seen_ns, now);
	skb_count(&frame, &packet, reply->backend);
	skb_classify(skb, reply->service);
	if (packet.tcp_flags & (TCP_FIN | TCP_RST)) {
		reply_owner(&owner, &key, reply);
		flow_close(&owner, 0, packet.tcp_flags, now);
	}
	return restore_source(skb, &packet, reply) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

int classify_backend(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct frame frame = {};
	struct reply_key key = {};
	struct reply *reply;

	if (skb_parse(skb, &frame, &packet))
		return skb_unknown(skb);
	address_copy(&key.client, &packet.source);
	address_copy(&key.backend, &packet.destination);
	key.client_port = packet.source_port;
	key.backend_port = packet.destination_port;
	key.protocol = packet.protocol;
	reply = reply_map.lookup(&key);
	if (!reply)
		return skb_unknown(skb);
	skb_classify(skb, reply->service);
	return TC_ACT_UNSPEC;
}
