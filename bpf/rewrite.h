/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Destination NAT in XDP. Checksums change by RFC 1624 increments, so a wrong checksum stays wrong
 * and the receiver still notices. A UDP checksum of 0 (none) stays 0; one that becomes 0 is sent
 * as 0xffff (RFC 768).
 */
#ifndef SHAPER_REWRITE_H
#define SHAPER_REWRITE_H

#include "parsing.h"

/* What replacing `from` by `to` adds to the one's complement sum: ~m + m'. */
static __always_inline __u64 csum_change(__u32 from, __u32 to)
{
	return (__u64)(__u32)~from + to;
}

static __always_inline __sum16 csum_apply(__sum16 check, __u64 change)
{
	__u64 sum = (__u16)~check + change;

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

static __always_inline int rewrite_transport(const struct frame *frame, const struct packet *packet,
					     __be16 port, __u64 change)
{
	void *transport = frame->data + (packet->transport & OFFSET_MASK);
	struct tcphdr *tcp = transport;
	struct udphdr *udp = transport;

	/* Both ports are 16 bits at an even offset, so they add up like the halves of a word. */
	change += csum_change(packet->destination_port, port);
	if (packet->protocol == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > frame->end)
			return -1;
		tcp->dest = port;
		tcp->check = csum_apply(tcp->check, change);
		return 0;
	}
	if ((void *)(udp + 1) > frame->end)
		return -1;
	udp->dest = port;
	if (udp->check) {
		udp->check = csum_apply(udp->check, change);
		if (!udp->check)
			udp->check = 0xffff;
	}
	return 0;
}

/* 0, or -1 with the packet as it was. */
static __always_inline int rewrite_destination(const struct frame *frame,
					       const struct packet *packet,
					       const struct backend *backend)
{
	const __be32 *to = backend->address.word, *from = packet->destination.word;
	void *network = frame->data + (packet->network & OFFSET_MASK);
	struct iphdr *ipv4 = network;
	__u64 change;

	/* Read again, not taken from `packet`: see cursor_skip about values that the verifier knows. */
	if ((void *)(ipv4 + 1) > frame->end)
		return -1;
	if (ipv4->version == 4) {
		change = csum_change(from[3], to[3]);
		if (rewrite_transport(frame, packet, backend->port, change))
			return -1;
		ipv4->daddr = to[3];
		ipv4->check = csum_apply(ipv4->check, change);
		return 0;
	}
#ifdef WITH_IPV6
	struct ipv6hdr *ipv6 = network;

	change = csum_change(from[0], to[0]) + csum_change(from[1], to[1]) +
		 csum_change(from[2], to[2]) + csum_change(from[3], to[3]);
	if ((void *)(ipv6 + 1) > frame->end ||
	    rewrite_transport(frame, packet, backend->port, change))
		return -1;
	__builtin_memcpy(&ipv6->daddr, to, sizeof(ipv6->daddr));
	return 0;
#else
	return -1;
#endif
}

#endif
