// SPDX-License-Identifier: Apache-2.0
//
// Redirects connections and datagrams for a VIP to one of its servers, in the client's own socket calls.
//
// Every address is 16 bytes, with IPv4 as ::ffff:a.b.c.d, because both hooks may run for one socket: an
// AF_INET6 socket that sends to ::ffff:VIP runs sendmsg4, and recvmsg6 for the answer. Addresses and
// ports are in network byte order. layout.rs has the same types; the two change together, and with
// them the layout's version there. After any change run ./compile, which updates l4lbd.bpf.o.
//
// The programs use no kernel structures, so they need no BTF of the kernel. Linux 5.10 or newer.

#include <stddef.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ECONNREFUSED 111

#define MAX_VIPS 65536
#define MAX_SLOTS 524288
#define MAX_SERVERS 262144
#define MAX_NETWORKS 65536
#define MAX_REPLIES 65536
#define MAX_DATAGRAMS 65536
#define MAX_EXEMPT 1024

struct address {
	__u32 words[4];
};

struct vip {
	struct address address;
	__u16 port;
	__u8 protocol;
	__u8 zero;
};

// Server of a VIP. It names the VIP, because the kernel may reuse an element of a hash for another key
// while a program that just looked it up reads its value.
struct slot {
	struct vip vip;
	struct address address;
	__u16 port;
	__u16 zero;
	__u32 id;
	__u32 weight;
};

// Server that a connected socket was given.
struct taken {
	struct vip vip;
	struct address address;
	__u16 port;
	__u16 counted;
	__u32 id;
};

// Network of VIPs: number of leading bits and address.
struct network {
	__u32 prefix;
	struct address address;
};

// Sender of datagrams to an unconnected socket, which is identified by its cookie.
struct reply {
	__u64 cookie;
	struct address address;
	__u32 port;
	__u32 zero;
};

// Address that an unconnected socket is shown as the sender.
struct shown {
	struct address address;
	__u32 port;
};

// Services. The value is one word, so that a reader never sees half a change: the first slot in bits 0
// to 31, the number of servers that take connections in 32 to 47, of all servers in 48 to 63. Servers
// with weight 0 come last.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_VIPS);
	__type(key, struct vip);
	__type(value, __u64);
} vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

// Numbers of sockets that these programs connected, by the server's id.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SERVERS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

// Networks in which connections are refused that are for no service.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_NETWORKS);
	__type(key, struct network);
	__type(value, __u32);
} networks SEC(".maps");

// Servers of connected sockets.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct taken);
} sockets SEC(".maps");

// Ids of the servers of connected UDP sockets, by the socket's cookie. The daemon needs them to end such
// sockets: the kernel's socket diagnostics list the storage of TCP sockets only.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_DATAGRAMS);
	__type(key, __u64);
	__type(value, __u32);
} datagrams SEC(".maps");

// VIPs that unconnected UDP sockets are shown as the senders of answers. A socket may wait for answers
// from several VIPs, for which its storage has no room.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_REPLIES);
	__type(key, struct reply);
	__type(value, struct shown);
} replies SEC(".maps");

// Processes whose sockets never pass a VIP: the process's id in the root namespace, and the number of its
// announcers that are open.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_EXEMPT);
	__type(key, __u32);
	__type(value, __u32);
} exempt SEC(".maps");

// Announcers: sockets by which a daemon exempts its process. The daemon stores a 0 here and connects the
// socket to port 0; the program replaces the 0 by the id of the process, which a daemon in a PID
// namespace does not know itself. The kernel closes the socket when the process ends in whatever way,
// before the id is used again, and then the exemption goes.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} announcers SEC(".maps");

// Set if the kernel has bpf_set_retval (5.18). Without it a refused call fails with EPERM.
const volatile __u32 has_set_retval = 1;

enum verdict { PASS, REFUSE, SEND };

// Server that replaces the address in a call.
struct target {
	const struct address *address;
	__u16 port;
};

static __always_inline struct address mapped(__u32 ip4)
{
	return (struct address){ { 0, 0, bpf_htonl(0xffff), ip4 } };
}

static __always_inline int same(const struct address *a, const struct address *b)
{
	return a->words[3] == b->words[3] && a->words[2] == b->words[2] &&
	       a->words[1] == b->words[1] && a->words[0] == b->words[0];
}

static __always_inline int same_vip(const struct vip *a, const struct vip *b)
{
	return a->port == b->port && a->protocol == b->protocol && same(&a->address, &b->address);
}

static __always_inline int refuse(void)
{
	if (has_set_retval)
		bpf_set_retval(-ECONNREFUSED);
	return 0;
}

static __always_inline struct slot *slot_of(const struct vip *vip, __u32 index)
{
	struct slot *slot = bpf_map_lookup_elem(&slots, &index);
	return slot && same_vip(&slot->vip, vip) ? slot : NULL;
}

// Connections that a server would have with one more, times the weight of the other. Comparing two such
// products compares the connections for each unit of weight, without a division.
static __always_inline __u64 load_of(const struct slot *slot, const struct slot *other)
{
	__s64 *count = bpf_map_lookup_elem(&counts, &slot->id);
	// The count can go negative if the map was recreated while counted sockets were open.
	return count && *count >= 0 ? (*count + 1) * other->weight : 0;
}

// Chooses a server: of two random ones the one with fewer connections for its weight. The socket of a
// datagram is not counted, so datagrams go to a random server.
static __always_inline enum verdict choose(const struct vip *vip, int connects, struct slot **chosen)
{
	// Reading an element while it is replaced is rare. Three times in a row does not happen in practice.
#pragma unroll
	for (int attempt = 0; attempt < 3; attempt++) {
		__u64 *found = bpf_map_lookup_elem(&vips, vip);
		if (!found) {
			struct network network = { 128, vip->address };
			return bpf_map_lookup_elem(&networks, &network) ? REFUSE : PASS;
		}
		__u64 value = *(volatile __u64 *)found;
		__u32 base = (__u32)value;
		__u64 active = (value >> 32) & 0xffff;
		// No server takes connections, or the element has another VIP's value by now.
		if (!active)
			continue;
		__u64 first = (bpf_get_prandom_u32() * active) >> 32;
		struct slot *slot = slot_of(vip, base + first);
		if (!slot)
			continue;
		if (connects && active > 1) {
			__u64 second = (bpf_get_prandom_u32() * (active - 1)) >> 32;
			if (second >= first)
				second++;
			struct slot *other = slot_of(vip, base + second);
			if (other && load_of(other, slot) < load_of(slot, other))
				slot = other;
		}
		*chosen = slot;
		return SEND;
	}
	return REFUSE;
}

// Adds a difference to the connections of a server.
static __always_inline void add(__u32 id, __u64 difference)
{
	__u64 *count = bpf_map_lookup_elem(&counts, &id);
	if (count)
		__sync_fetch_and_add(count, difference);
}

// Stops counting a socket.
static __always_inline void release(struct taken *taken, __u64 cookie)
{
	if (!taken->counted)
		return;
	taken->counted = 0;
	add(taken->id, -1);
	if (taken->vip.protocol == IPPROTO_UDP)
		bpf_map_delete_elem(&datagrams, &cookie);
}

static __always_inline int is_balanced(__u32 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

static __always_inline struct vip vip_of(struct bpf_sock_addr *context, struct address address)
{
	return (struct vip){ address, context->user_port, context->protocol, 0 };
}

static __always_inline __u32 current_process(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline int is_exempt(void)
{
	__u32 process = current_process();
	return bpf_map_lookup_elem(&exempt, &process) != NULL;
}

// Exempts the current process if the socket is an announcer.
static __always_inline void announce(struct bpf_sock *sk)
{
	__u32 *announced = bpf_sk_storage_get(&announcers, sk, NULL, 0);
	if (!announced || *announced)
		return;
	__u32 process = current_process();
	__u32 *known = bpf_map_lookup_elem(&exempt, &process);
	__u32 open = known ? *known + 1 : 1;
	if (!bpf_map_update_elem(&exempt, &process, &open, BPF_ANY))
		*announced = process;
}

// Ends the exemption of a process with its last announcer.
static __always_inline void withdraw(struct bpf_sock *sk)
{
	__u32 *announced = bpf_sk_storage_get(&announcers, sk, NULL, 0);
	if (!announced || !*announced)
		return;
	__u32 process = *announced;
	__u32 *open = bpf_map_lookup_elem(&exempt, &process);
	if (!open)
		return;
	if (*open > 1)
		*open -= 1;
	else
		bpf_map_delete_elem(&exempt, &process);
}

static __always_inline enum verdict on_connect(struct bpf_sock_addr *context, struct address address,
					       struct target *target)
{
	if (!is_balanced(context->protocol))
		return PASS;
	struct vip vip = vip_of(context, address);
	struct slot *slot = NULL;
	enum verdict verdict = choose(&vip, 1, &slot);
	struct bpf_sock *sk = context->sk;
	// No VIP has port 0.
	if (sk && !vip.port && vip.protocol == IPPROTO_UDP)
		announce(sk);
	if (verdict != PASS && is_exempt()) {
		verdict = PASS;
		slot = NULL;
	}
	// A refused call changes nothing: a connected UDP socket keeps its peer.
	if (verdict == REFUSE)
		return verdict;
	if (slot)
		*target = (struct target){ &slot->address, slot->port };
	if (!sk)
		return verdict;
	// The socket may have been given a server before: a UDP socket may connect again, and so may a TCP
	// socket whose connection was refused.
	struct taken *taken =
		bpf_sk_storage_get(&sockets, sk, NULL, verdict == SEND ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (!taken)
		return verdict;
	__u64 cookie = bpf_get_socket_cookie(context);
	release(taken, cookie);
	if (verdict != SEND || !slot) {
		bpf_sk_storage_delete(&sockets, sk);
		return verdict;
	}
	taken->vip = vip;
	taken->address = slot->address;
	taken->port = slot->port;
	taken->id = slot->id;
	taken->counted = 1;
	add(taken->id, 1);
	if (vip.protocol == IPPROTO_UDP)
		bpf_map_update_elem(&datagrams, &cookie, &taken->id, BPF_ANY);
	return verdict;
}

static __always_inline enum verdict on_send(struct bpf_sock_addr *context, struct address address,
					    struct target *target)
{
	if (!is_balanced(context->protocol))
		return PASS;
	struct vip vip = vip_of(context, address);
	struct bpf_sock *sk = context->sk;
	// A connected socket receives from its own server only, so a datagram to its VIP must go there.
	if (sk && sk->state == BPF_TCP_ESTABLISHED) {
		struct taken *taken = bpf_sk_storage_get(&sockets, sk, NULL, 0);
		if (taken && same_vip(&taken->vip, &vip)) {
			*target = (struct target){ &taken->address, taken->port };
			return SEND;
		}
	}
	struct slot *slot = NULL;
	enum verdict verdict = choose(&vip, 0, &slot);
	if (verdict != PASS && is_exempt())
		return PASS;
	if (verdict != SEND || !slot)
		return verdict;
	*target = (struct target){ &slot->address, slot->port };
	struct reply reply = { bpf_get_socket_cookie(context), slot->address, slot->port, 0 };
	struct shown *known = bpf_map_lookup_elem(&replies, &reply);
	// A lookup is far cheaper than an update, and most datagrams are not the first to their server.
	if (!known || known->port != vip.port || !same(&known->address, &vip.address)) {
		struct shown shown = { vip.address, vip.port };
		bpf_map_update_elem(&replies, &reply, &shown, BPF_ANY);
	}
	return verdict;
}

// Server of a socket, if `address` and the context's port are those of that server; otherwise NULL.
static __always_inline struct taken *peer_of(struct bpf_sock_addr *context, const struct address *address)
{
	struct bpf_sock *sk = context->sk;
	if (!sk)
		return NULL;
	struct taken *taken = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (!taken || taken->port != (__u16)context->user_port || !same(&taken->address, address))
		return NULL;
	return taken;
}

// Finds the VIP to show instead of a server that sent a datagram; returns 0 if there is none.
static __always_inline int from_vip(struct bpf_sock_addr *context, const struct address *from,
				    struct shown *shown)
{
	struct taken *taken = peer_of(context, from);
	if (taken) {
		*shown = (struct shown){ taken->vip.address, taken->vip.port };
		return 1;
	}
	struct reply reply = { bpf_get_socket_cookie(context), *from, (__u16)context->user_port, 0 };
	struct shown *known = bpf_map_lookup_elem(&replies, &reply);
	if (!known)
		return 0;
	*shown = *known;
	return 1;
}

static __always_inline struct address address6(struct bpf_sock_addr *context)
{
	return (struct address){ { context->user_ip6[0], context->user_ip6[1], context->user_ip6[2],
				   context->user_ip6[3] } };
}

static __always_inline void set6(struct bpf_sock_addr *context, const struct address *address, __u16 port)
{
	context->user_ip6[0] = address->words[0];
	context->user_ip6[1] = address->words[1];
	context->user_ip6[2] = address->words[2];
	context->user_ip6[3] = address->words[3];
	context->user_port = port;
}

static __always_inline void set4(struct bpf_sock_addr *context, const struct address *address, __u16 port)
{
	context->user_ip4 = address->words[3];
	context->user_port = port;
}

static __always_inline int carry_out4(struct bpf_sock_addr *context, enum verdict verdict,
				      const struct target *target)
{
	if (verdict == REFUSE)
		return refuse();
	if (verdict == SEND && target->address)
		set4(context, target->address, target->port);
	return 1;
}

static __always_inline int carry_out6(struct bpf_sock_addr *context, enum verdict verdict,
				      const struct target *target)
{
	if (verdict == REFUSE)
		return refuse();
	if (verdict == SEND && target->address)
		set6(context, target->address, target->port);
	return 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *context)
{
	struct target target = { NULL, 0 };
	enum verdict verdict = on_connect(context, mapped(context->user_ip4), &target);
	return carry_out4(context, verdict, &target);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *context)
{
	struct target target = { NULL, 0 };
	enum verdict verdict = on_connect(context, address6(context), &target);
	return carry_out6(context, verdict, &target);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *context)
{
	struct target target = { NULL, 0 };
	enum verdict verdict = on_send(context, mapped(context->user_ip4), &target);
	return carry_out4(context, verdict, &target);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *context)
{
	struct target target = { NULL, 0 };
	enum verdict verdict = on_send(context, address6(context), &target);
	return carry_out6(context, verdict, &target);
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *context)
{
	struct address from = mapped(context->user_ip4);
	struct shown shown;
	if (from_vip(context, &from, &shown))
		set4(context, &shown.address, shown.port);
	return 1;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *context)
{
	struct address from = address6(context);
	struct shown shown;
	if (from_vip(context, &from, &shown))
		set6(context, &shown.address, shown.port);
	return 1;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *context)
{
	struct address peer = mapped(context->user_ip4);
	struct taken *taken = peer_of(context, &peer);
	if (taken)
		set4(context, &taken->vip.address, taken->vip.port);
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *context)
{
	struct address peer = address6(context);
	struct taken *taken = peer_of(context, &peer);
	if (taken)
		set6(context, &taken->vip.address, taken->vip.port);
	return 1;
}

SEC("cgroup/sock_release")
int sock_release(struct bpf_sock *sk)
{
	struct taken *taken = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (taken)
		release(taken, bpf_get_socket_cookie(sk));
	withdraw(sk);
	return 1;
}

char licence[] SEC("license") = "Apache-2.0";
