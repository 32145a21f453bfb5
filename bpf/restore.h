/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Source NAT at clsact egress: the service's address and port come back. The helpers know what an
 * skb can be: its checksum may be left to the device (CHECKSUM_PARTIAL, where only the pseudo
 * header counts) and its bytes shared with a clone. They invalidate every packet pointer.
 */
#ifndef SHAPER_RESTORE_H
#define SHAPER_RESTORE_H

#include "parsing.h"

/* Offsets from the Ethernet header on. */
struct offsets {
	__u32 network;
	__u32 source; /* the address */
	__u32 port; /* the source port, first in both TCP and UDP */
	__u32 check; /* TCP's or UDP's */
};

static __always_inline struct offsets restore_offsets(const struct packet *packet)
{
	struct offsets at = {
		.network = packet->network,
		.port = packet->transport,
	};

	at.source = at.network + (packet->version == 4 ? offsetof(struct iphdr, saddr)
						       : offsetof(struct ipv6hdr, saddr));
	at.check = at.port + (packet->protocol == IPPROTO_TCP ? offsetof(struct tcphdr, check)
							      : offsetof(struct udphdr, check));
	return at;
}

static __always_inline int restore_ipv4(struct __sk_buff *skb, const struct offsets *at,
					__be32 from, __be32 to, __u64 flags)
{
	return bpf_l4_csum_replace(skb, at->check, from, to,
				   flags | BPF_F_PSEUDO_HDR | sizeof(to)) ||
	       bpf_l3_csum_replace(skb, at->network + offsetof(struct iphdr, check), from, to,
				   sizeof(to)) ||
	       bpf_skb_store_bytes(skb, at->source, &to, sizeof(to), 0);
}

/*
 * bpf_csum_diff fails for sizes only that are no multiple of 4. Its result is not to be taken for an
 * error: before Linux 6.13 it uses all 32 bits, and bcc declares it as an int.
 */
static __always_inline int restore_ipv6(struct __sk_buff *skb, const struct offsets *at,
					struct address *from, struct address *to, __u64 flags)
{
	__u32 change = bpf_csum_diff(from, sizeof(*from), to, sizeof(*to), 0);

	return bpf_l4_csum_replace(skb, at->check, 0, change, flags | BPF_F_PSEUDO_HDR) ||
	       bpf_skb_store_bytes(skb, at->source, to, sizeof(*to), 0);
}

/* 0, or not: the packet may be half changed and must not leave. */
static __always_inline int restore_source(struct __sk_buff *skb, struct packet *packet,
					  const struct reply *reply)
{
	__u64 flags = packet->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	struct offsets at = restore_offsets(packet);
	struct address to = reply->address;
	__be16 port = reply->port;

	if (packet->version == 4 &&
	    restore_ipv4(skb, &at, packet->source.word[3], to.word[3], flags))
		return -1;
	if (packet->version == 6 && restore_ipv6(skb, &at, &packet->source, &to, flags))
		return -1;
	return bpf_l4_csum_replace(skb, at.check, packet->source_port, port,
				   flags | sizeof(port)) ||
	       bpf_skb_store_bytes(skb, at.port, &port, sizeof(port), 0);
}

#endif
