/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cursor parsers. Each checks bounds once, moves the cursor behind what it read and returns the
 * next protocol, or -1 for anything that is not for us: truncated, lying about its lengths, a later
 * fragment, a protocol without ports. Whoever gets -1 leaves the packet alone.
 */
#ifndef SHAPER_PARSING_H
#define SHAPER_PARSING_H

#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>
#include <uapi/linux/udp.h>
#include "shared.h"

#define VLAN_TAGS_MAX 2
#define EXTENSIONS_MAX 6
#define OFFSET_MASK 0x3fff /* of any header: the limits above add up to less */

#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_MORE_FRAGMENTS 0x0001
#define IPV6_FRAGMENT_OFFSET 0xfff8

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* include/net/ipv6.h is not a UAPI header. */
#define NEXTHDR_HOP 0
#define NEXTHDR_ROUTING 43
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_DEST 60

/* The bytes that may be read. `length` may be more than they are: an skb's tail is elsewhere. */
struct frame {
	void *data;
	void *end;
	__u32 length;
	__u32 segments; /* of a GSO packet; 0: not one */
};

struct cursor {
	void *start;
	void *end;
	__u64 offset;
	__u64 left; /* bytes from there to the end of the frame, later of the IP packet */
};

/*
 * A TCP or UDP packet; headers as offsets from the start of the frame. In a first fragment only the
 * ports are known, neither TCP flags nor `payload`.
 */
struct packet {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 version; /* 4 or 6 */
	__u8 protocol;
	__u8 fragment;
	__u8 tcp_flags;
	__u64 network; /* the IP header */
	__u64 transport; /* the TCP or UDP header */
	__u64 payload; /* what follows it */
};

struct vlan_tag {
	__be16 tci;
	__be16 protocol;
};

struct extension {
	__u8 next;
	__u8 length; /* in 8 bytes, without the first 8 */
	__u8 type;
	__u8 segments_left; /* routing header */
	__be32 data;
};
_Static_assert(sizeof(struct extension) == 8, "extension");

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};
_Static_assert(sizeof(struct fragment_header) == 8, "fragment_header");

/* Whether a packet is TCP's first SYN. UDP and fragments have no flags. */
static __always_inline int tcp_is_first(const struct packet *packet)
{
	const __u8 mask = TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN;

	return (packet->tcp_flags & mask) == TCP_SYN;
}

/* The next `size` bytes, or NULL where the frame has fewer. */
static __always_inline void *cursor_read(const struct cursor *cursor, __u32 size)
{
	void *at = cursor->start + (cursor->offset & OFFSET_MASK);

	return at + size > cursor->end ? NULL : at;
}

/*
 * Moves on by at most 2 KiB. The new offset is a difference of pointers, because the verifier knows
 * nothing of its value then: with a value that depends on VLAN tags, options and extension headers
 * it would go through all that follows once for each combination of them.
 */
static __always_inline int cursor_skip(struct cursor *cursor, __u32 size)
{
	void *at = cursor->start + (cursor->offset & OFFSET_MASK) + size;

	if (size > cursor->left)
		return -1;
	asm volatile("" : "+r"(at)); /* or the compiler would do the sum instead */
	cursor->offset = at - cursor->start;
	cursor->left -= size;
	return 0;
}

/* Over 0, 1 or 2 VLAN tags; returns the EtherType behind them in host order. */
static __always_inline int parse_ethernet(struct cursor *cursor)
{
	struct ethhdr *ethernet = cursor_read(cursor, sizeof(*ethernet));
	struct vlan_tag *tag;
	__u16 protocol;
	int tags;

	if (!ethernet || cursor_skip(cursor, sizeof(*ethernet)))
		return -1;
	protocol = bpf_ntohs(ethernet->h_proto);
#pragma unroll
	for (tags = 0; tags < VLAN_TAGS_MAX; tags++) {
		if (protocol != ETH_P_8021Q && protocol != ETH_P_8021AD)
			break;
		tag = cursor_read(cursor, sizeof(*tag));
		if (!tag || cursor_skip(cursor, sizeof(*tag)))
			return -1;
		protocol = bpf_ntohs(tag->protocol);
	}
	return protocol;
}

static __always_inline void address_from_ipv4(struct address *address, __be32 ipv4)
{
	address->word[0] = 0;
	address->word[1] = 0;
	address->word[2] = bpf_htonl(0xffff);
	address->word[3] = ipv4;
}

/*
 * The IP packet ends where its header says; Ethernet padding follows. A GSO packet of more than
 * 64 KiB (BIG TCP) says 0.
 */
static __always_inline int limit_length(struct cursor *cursor, const struct frame *frame,
					__u32 length)
{
	if (length == 0 && frame->segments)
		return 0;
	if (length > cursor->left)
		return -1;
	cursor->left = length;
	return 0;
}

static __always_inline int parse_ipv4(struct cursor *cursor, const struct frame *frame,
				      struct packet *packet)
{
	struct iphdr *ip = cursor_read(cursor, sizeof(*ip));
	__u16 fragment;

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return -1;
	if (limit_length(cursor, frame, bpf_ntohs(ip->tot_len)))
		return -1;
	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & IPV4_FRAGMENT_OFFSET)
		return -1;
	packet->fragment = !!(fragment & IPV4_MORE_FRAGMENTS);
	packet->version = 4;
	packet->network = cursor->offset;
	address_from_ipv4(&packet->source, ip->saddr);
	address_from_ipv4(&packet->destination, ip->daddr);
	return cursor_skip(cursor, ip->ihl * 4) ? -1 : ip->protocol;
}

#ifdef WITH_IPV6
/*
 * ::ffff:0:0/96 never appears on a wire (RFC 4291); here it means IPv4, so it must not get in. One
 * comparison, not three: each would teach the verifier something, and so be a path of its own.
 */
static __always_inline int address_is_mapped(const struct address *address)
{
	return !(address->word[0] | address->word[1] | (address->word[2] ^ bpf_htonl(0xffff)));
}

/*
 * One extension header. A routing header with segments left means that the destination in the IPv6
 * header is not the last one, so the transport checksum does not cover it. An atomic fragment
 * (RFC 6946) is no fragment.
 */
static __always_inline int parse_extension(struct cursor *cursor, int next, struct packet *packet)
{
	struct extension *extension = cursor_read(cursor, sizeof(*extension));
	struct fragment_header *header = (void *)extension;
	__u16 fragment;

	if (!extension)
		return -1;
	if (next == NEXTHDR_FRAGMENT) {
		fragment = bpf_ntohs(header->offset);
		if (fragment & IPV6_FRAGMENT_OFFSET)
			return -1;
		packet->fragment |= !!(fragment & IPV6_MORE_FRAGMENTS);
		return cursor_skip(cursor, sizeof(*header)) ? -1 : header->next;
	}
	if (next == NEXTHDR_ROUTING && extension->segments_left)
		return -1;
	return cursor_skip(cursor, 8 + extension->length * 8) ? -1 : extension->next;
}

static __always_inline int parse_ipv6(struct cursor *cursor, const struct frame *frame,
				      struct packet *packet)
{
	struct ipv6hdr *ip = cursor_read(cursor, sizeof(*ip));
	int next, extensions;

	if (!ip || ip->version != 6)
		return -1;
	packet->network = cursor->offset;
	if (cursor_skip(cursor, sizeof(*ip)))
		return -1;
	if (limit_length(cursor, frame, bpf_ntohs(ip->payload_len)))
		return -1;
	packet->version = 6;
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip->daddr, sizeof(packet->destination));
	if (address_is_mapped(&packet->source) || address_is_mapped(&packet->destination))
		return -1;
	next = ip->nexthdr;
#pragma unroll
	for (extensions = 0; extensions < EXTENSIONS_MAX; extensions++) {
		if (next != NEXTHDR_HOP && next != NEXTHDR_ROUTING && next != NEXTHDR_FRAGMENT &&
		    next != NEXTHDR_DEST)
			break;
		next = parse_extension(cursor, next, packet);
	}
	return next;
}
#endif

static __always_inline int parse_tcp(struct cursor *cursor, struct packet *packet)
{
	struct tcphdr *tcp = cursor_read(cursor, sizeof(*tcp));

	if (!tcp || tcp->doff < 5)
		return -1;
	packet->source_port = tcp->source;
	packet->destination_port = tcp->dest;
	packet->tcp_flags = ((__u8 *)tcp)[13];
	packet->transport = cursor->offset;
	if (cursor_skip(cursor, tcp->doff * 4))
		return -1;
	packet->payload = cursor->offset;
	return 0;
}

static __always_inline int parse_udp(struct cursor *cursor, struct packet *packet)
{
	struct udphdr *udp = cursor_read(cursor, sizeof(*udp));
	__u16 length;

	if (!udp)
		return -1;
	length = bpf_ntohs(udp->len);
	if (length < sizeof(*udp) || length > cursor->left)
		return -1;
	packet->source_port = udp->source;
	packet->destination_port = udp->dest;
	packet->transport = cursor->offset;
	packet->payload = packet->transport + sizeof(*udp);
	return 0;
}

/* A first fragment: its transport header counts bytes that are in later fragments. */
static __always_inline int parse_ports(struct cursor *cursor, struct packet *packet)
{
	struct udphdr *ports = cursor_read(cursor, sizeof(*ports));

	if (!ports || sizeof(*ports) > cursor->left)
		return -1;
	packet->source_port = ports->source;
	packet->destination_port = ports->dest;
	return 0;
}

/* The whole way down. 0, or -1: not for us. */
static __always_inline int parse_packet(const struct frame *frame, struct packet *packet)
{
	struct cursor cursor = {
		.start = frame->data,
		.end = frame->end,
		.left = frame->length,
	};
	int protocol = parse_ethernet(&cursor);

	if (protocol == ETH_P_IP)
		protocol = parse_ipv4(&cursor, frame, packet);
#ifdef WITH_IPV6
	else if (protocol == ETH_P_IPV6)
		protocol = parse_ipv6(&cursor, frame, packet);
#endif
	else
		return -1;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return -1;
	packet->protocol = protocol;
	if (packet->fragment)
		return parse_ports(&cursor, packet);
	return protocol == IPPROTO_TCP ? parse_tcp(&cursor, packet) : parse_udp(&cursor, packet);
}

#endif
