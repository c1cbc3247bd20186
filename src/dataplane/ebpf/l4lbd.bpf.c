// SPDX-License-Identifier: Apache-2.0
//
// Redirects connections and datagrams for a VIP to one of its servers, in the client's own socket calls.
//
// Every address is 16 bytes, with IPv4 as ::ffff:a.b.c.d, because both hooks may run for one socket: an
// AF_INET6 socket that sends to ::ffff:VIP runs sendmsg4, and recvmsg6 for the answer. Addresses and
// ports are in network byte order. layout.rs has the same types; the two change together. A map that is
// added is created beside those of an earlier version; any other change of a map needs another version of
// the layout there. After any change run ./compile, which updates l4lbd.bpf.o.
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
#define MAX_LISTED 65536
#define MAX_EXEMPT 1024
#define LOCKS 64
#define ATTEMPTS 6
#define MAX_TROUBLES 8192
#define MAX_SHARES 4096
// New elements of `troubles` that one network namespace may have while they matter, so that a single client does not
// wash out what others have there.
#define SHARE (MAX_TROUBLES / 8)

// Servers of a VIP that are remembered to have failed for a network namespace, and so the most that are ejected.
#define FAILING 16

// Classes of the time that a connect took: up to 64 microseconds, twice as long as the one before, and the rest.
#define LATENCIES 16
#define LATENCY_SHIFT 6
// Time that the kernel waits for an answer before it sends a SYN again.
#define FIRST_TIMEOUT 1000000000ull

// Servers that an unconnected UDP socket keeps, questions that it waits for answers to, and servers that it keeps
// beyond the first.
#define KEPT 12
#define QUESTIONS 32
#define MORE 64

// Times are in units of 2^20 nanoseconds, which is about a millisecond.
#define TIME_SHIFT 20
// Time after which a question is not expected to be answered any more. A resolver that has waited for a
// second asks another server.
#define LONGEST_WAIT (1000000000 >> TIME_SHIFT)

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
	// WEIGHTED and UNEJECTED.
	__u16 flags;
	__u32 id;
	__u32 weight;
};

// The servers of the VIP that take connections have different weights.
#define WEIGHTED 1
// No server of the VIP is ejected.
#define UNEJECTED 2

// How a slot is drawn for a VIP whose servers have different weights (the alias method of Walker and Vose): one of
// the slots is drawn as if all were equal, and then it, or one other slot, is taken. So a draw takes the same time
// for any number of servers.
struct draw {
	// Share of the draws of this slot that go to the other one, of 2^32.
	__u32 moved;
	// Place of the other one, counted from the VIP's first slot.
	__u32 other;
};

// Server that a connected socket was given.
struct taken {
	struct vip vip;
	struct address address;
	__u16 port;
	__u16 counted;
	__u32 id;
};

// Connects to a server since it was given its id. The numbers start again at 0 after the largest.
struct connects {
	__u32 begun;
	__u32 established;
	__u32 refused;
	__u32 timed_out;
	// SYNs that were sent again.
	__u32 retransmissions;
	// Number of the VIP's element in `vip_connects`, counted from 1; 0 if it has none.
	__u32 vip;
};

// Connects to a VIP, also to servers that it lost.
struct vip_connects {
	struct vip vip;
	__u32 refused;
	__u64 begun;
	__u64 established;
	__u32 timed_out;
	__u32 retransmissions;
	// Established connections by the time that their connect took.
	__u32 latencies[LATENCIES];
};

// VIP as it is used in a network namespace, which is identified by its cookie.
struct client {
	__u64 namespace;
	struct vip vip;
	__u32 zero;
};

// Server that has failed for a client. Times are those of now().
struct failing {
	// Id of the server, counted from 1; 0 if this place is free.
	__u32 server;
	// Number of its stay, see stay_of().
	__u32 stay;
	// Failures since the last success, and times that it was ejected since.
	__u16 failures;
	__u16 ejections;
	// End of the ejection. After that, a single connection is sent there to see what becomes of it.
	__u32 until;
	// Begin of that connection; 0 if it has not begun.
	__u32 trial;
	// Time of the last failure.
	__u32 failed;
};

// Failures of a server, whoever its client was.
struct failures {
	// Time of the last one; 0 for none.
	__u32 failed;
	// Random number that the daemon writes each time that the server begins to take connections.
	__u32 begun;
};

// Servers of a VIP that have failed for a client.
struct troubles {
	struct failing failing[FAILING];
};

// Elements of `troubles` that a network namespace has begun since a time.
struct share {
	__u32 since;
	__u32 begun;
};

struct lock {
	struct bpf_spin_lock lock;
	__u32 zero;
};

// Network of VIPs: number of leading bits and address.
struct network {
	__u32 prefix;
	struct address address;
};

// Server that an unconnected UDP socket keeps for a VIP.
struct kept {
	struct address vip;
	struct address address;
	__u16 vip_port;
	// 0 if this place is free.
	__u16 port;
	__u32 id;
	// Value in the map `active` when the server was chosen.
	__u32 term;
	// Time of the last datagram.
	__u32 used;
	// Number of the socket's last question to the VIP; 0 if the server itself was asked since.
	__u32 asked;
};

// Datagram that an unconnected UDP socket has sent.
struct question {
	__u32 at;
	// Place of the VIP among the socket's kept servers, the mark of an address without one, or ANSWERED.
	__u32 of;
};

#define MARK 0x80000000
#define ANSWERED 0x7fffffff

// Servers that an unconnected UDP socket keeps, and its last questions.
struct keeps {
	struct kept kept[KEPT];
	struct question questions[QUESTIONS];
	// Number of questions that were ever asked, and of the first that may be open.
	__u32 asked;
	__u32 first;
	// 1 if the socket had no place for a VIP, so that the map `more` has servers of it.
	__u32 overflows;
	// Results of the loops below. The verifier does not follow what is stored here, so that it looks at each
	// turn of a loop once and not once for every way that leads there. A socket is locked while a program runs.
	volatile __u32 place;
	volatile __u32 places;
	volatile __u32 newest;
};

// Servers that an unconnected UDP socket keeps beyond the first.
struct more {
	struct kept kept[MORE];
	// As in `keeps`.
	volatile __u32 place;
	__u32 zero;
	volatile __u64 best;
};

// Connected UDP socket: its cookie, and the id of its server, or NOWHERE.
struct datagram {
	__u64 cookie;
	__u32 id;
	__u32 zero;
};

#define NOWHERE 0xffffffff

// Numbers of a listing, see list_datagrams().
struct listing {
	// Sockets that earlier runs of the listing have told.
	__u32 skipped;
	// Sockets that were found, those that were skipped included.
	__u32 found;
	// 1 if those are to be told as well whose server takes new sockets, or that have none any more.
	__u32 all;
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

// How each slot is drawn, by its number.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct draw);
} draws SEC(".maps");

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

// Connected UDP sockets. The daemon lists them to end those of deleted servers: the kernel's socket diagnostics tell
// the storage of TCP sockets only. The storage goes with its socket, so sockets take it from no other ones.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct datagram);
} connected SEC(".maps");

// Result of list_datagrams().
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_LISTED);
	__type(key, __u32);
	__type(value, struct datagram);
} listed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct listing);
} listing SEC(".maps");

// Servers that take datagrams of unconnected sockets, by their ids: a number that stands for VIP and server,
// or 0 if the server of that id takes none. What a socket has kept of an id holds while this is the same.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SERVERS);
	__type(key, __u32);
	__type(value, __u32);
} active SEC(".maps");

// Servers that unconnected UDP sockets keep. The storage goes with its socket, so sockets take it from no other
// ones, however many there are.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct keeps);
} unconnected SEC(".maps");

// Servers of the VIPs for which that storage has no place. A socket that has too many VIPs for this as well forgets
// those that it used least recently.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct more);
} more SEC(".maps");

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

// What became of the connects to each server, by the server's id.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SERVERS);
	__type(key, __u32);
	__type(value, struct connects);
} connects SEC(".maps");

// What became of the connects to each VIP.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_VIPS);
	__type(key, __u32);
	__type(value, struct vip_connects);
} vip_connects SEC(".maps");

// Time at which a connect began whose first SYN was not answered; 0 for any other socket.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} late SEC(".maps");

// Locks for what is to be done once for a socket, by the id of its server.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOCKS);
	__type(key, __u32);
	__type(value, struct lock);
} locks SEC(".maps");

// Failures of each server, by its id. They spare the connects to all other servers from looking for their client's
// own troubles.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SERVERS);
	__type(key, __u32);
	__type(value, struct failures);
} failures SEC(".maps");

// Servers that have failed for a client.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_TROUBLES);
	__type(key, struct client);
	__type(value, struct troubles);
} troubles SEC(".maps");

// What network namespaces have begun there.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_SHARES);
	__type(key, __u64);
	__type(value, struct share);
} shares SEC(".maps");

// The beginning of each element of `troubles`, which would not fit on the stack. Nothing is written here.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct troubles);
} no_troubles SEC(".maps");

// Network namespaces of connecting sockets, for kernels that do not tell them to the program `sock_ops`.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} namespaces SEC(".maps");

// Set if the kernel has bpf_set_retval (5.18). Without it a refused call fails with EPERM.
const volatile __u32 has_set_retval = 1;

// Time without a datagram after which an unconnected socket may get another server.
const volatile __u32 udp_timeout = 60000000000 >> TIME_SHIFT;

// Set if the kernel has bpf_get_netns_cookie for `sock_ops` (5.15).
const volatile __u32 has_namespace = 1;

// Failures in a row for which a server is ejected; 0 for none.
const volatile __u32 eject_after = 3;
// Time of the first ejection, and the longest one.
const volatile __u32 eject_time = 1000000000 >> TIME_SHIFT;
const volatile __u32 eject_limit = 30000000000 >> TIME_SHIFT;

// Time after a failure for which it is remembered beyond the longest ejection.
#define MEMORY (60000000000 >> TIME_SHIFT)
// Time for which the outcome of a trial is waited for. The first SYN is due again after a second.
#define LONGEST_TRIAL (3000000000 >> TIME_SHIFT)

// Longest time for which a program runs.
#define MOMENT (1000000000 >> TIME_SHIFT)

// Bits of the field `counted`. The second is set for a trial.
#define COUNTED 1
#define TRIAL 2

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

// Draws a slot by weight, from one that was drawn as if all weights were equal. Returns its place in the VIP.
static __always_inline __u64 drawn(__u32 base, __u64 place)
{
	__u32 index = base + place;
	struct draw *draw = bpf_map_lookup_elem(&draws, &index);
	return draw && bpf_get_prandom_u32() < draw->moved ? draw->other : place;
}

// Connections of a server, times the weight of the other. Comparing two such products compares the connections for
// each unit of weight, without a division. The new connection is not among them: it would weigh less at the heavier
// server, which would take all connections where none stays open.
static __always_inline __u64 load_of(const struct slot *slot, const struct slot *other)
{
	__s64 *count = bpf_map_lookup_elem(&counts, &slot->id);
	// The count can go negative if the map was recreated while counted sockets were open.
	return count && *count >= 0 ? *count * other->weight : 0;
}

static __always_inline __u32 now(void)
{
	__u32 time = bpf_ktime_get_ns() >> TIME_SHIFT;
	// 0 stands for no time at all.
	return time ? time : 1;
}

static __always_inline __u32 term_of(__u32 id)
{
	__u32 *term = bpf_map_lookup_elem(&active, &id);
	return term ? *term : 0;
}

// Returns 1 for 0, and 0 for any other number of 32 bits. The verifier would follow both ways of a comparison, for
// each of the places below; the compiler is kept from making one of it.
static __always_inline __u64 is_zero(__u64 number)
{
	asm volatile("" : "+r"(number));
	number = (number - 1) >> 63;
	asm volatile("" : "+r"(number));
	return number;
}

// Returns 1 if a time is at most so long ago. Another processor may have noted one that is a moment ahead.
static __always_inline int is_since(__u32 since, __u32 time, __u32 limit)
{
	return time - since + MOMENT <= limit + MOMENT;
}

static __always_inline int is_remembered(__u32 failed, __u32 time)
{
	return is_since(failed, time, eject_limit + MEMORY);
}

// Returns 1 if the last failure of a server, for any client, is not long ago. The clock is read only for a server that
// has ever failed, because reading it costs as much as all else here.
static __always_inline int is_suspect(__u32 id)
{
	struct failures *known = bpf_map_lookup_elem(&failures, &id);
	return known && known->failed && is_remembered(known->failed, now());
}

// Returns a number for a server from when it begins to take connections until it takes none any more, by the word of
// Mesos; 0 if it takes none. What is remembered of a server ends with that.
static __always_inline __u32 stay_of(__u32 id)
{
	__u32 term = term_of(id);
	struct failures *known = bpf_map_lookup_elem(&failures, &id);
	return term && known ? (term ^ known->begun) | 1 : 0;
}

static __always_inline struct failing *failing_at(struct troubles *troubles, __u64 place)
{
	place--;
	if (place >= FAILING)
		return NULL;
	asm volatile("" : "+r"(place));
	return &troubles->failing[place];
}

// Finds a server among those that failed for a client; NULL if it is none of them.
static __always_inline struct failing *failing_of(struct troubles *troubles, __u32 id)
{
	__u64 place = 0;
#pragma unroll
	for (__u32 i = 0; i < FAILING; i++)
		place += is_zero(troubles->failing[i].server ^ (id + 1)) * (i + 1);
	return failing_at(troubles, place);
}

// Finds a place for another server: a free one, or of one that takes connections; NULL if all are ejected.
static __always_inline struct failing *place_for_failing(struct troubles *troubles)
{
	__u64 free = 0, serving = 0;
#pragma unroll
	for (__u32 i = 0; i < FAILING; i++) {
		struct failing *failing = &troubles->failing[i];
		free += is_zero(failing->server) * (i + 1 - free);
		serving += is_zero(failing->ejections) * (i + 1 - serving);
	}
	return failing_at(troubles, free ? free : serving);
}

static __always_inline __u32 ejected(const struct troubles *troubles)
{
	__u32 ejected = FAILING;
#pragma unroll
	for (__u32 i = 0; i < FAILING; i++)
		ejected -= is_zero(troubles->failing[i].ejections);
	return ejected;
}

// Forgets servers that take no connections any more, or failed long ago.
static __always_inline void forget_failing(struct troubles *troubles, __u32 time)
{
	for (__u32 i = 0; i < FAILING; i++) {
		struct failing *failing = &troubles->failing[i];
		if (failing->server && (stay_of(failing->server - 1) != failing->stay || !is_remembered(failing->failed, time))) {
			failing->ejections = 0;
			failing->server = 0;
		}
	}
}

static __always_inline struct lock *lock_of(__u32 index)
{
	index %= LOCKS;
	return bpf_map_lookup_elem(&locks, &index);
}

// One lock for all servers of a VIP, because their ejections are counted.
static __always_inline struct lock *lock_of_vip(const struct vip *vip)
{
	return lock_of(vip->address.words[3] ^ vip->address.words[3] >> 24 ^ vip->port);
}

enum standing { FREE, DUE, EJECTED };

// Tells if a server takes connections of a client, or is to be tried by one.
static __always_inline enum standing standing_of(struct troubles *troubles, __u32 id, __u32 time)
{
	struct failing *failing = failing_of(troubles, id);
	if (!failing || !failing->ejections || failing->stay != stay_of(id) || !is_remembered(failing->failed, time))
		return FREE;
	if ((__s32)(time - failing->until) < 0)
		return EJECTED;
	__u32 trial = failing->trial;
	return trial && is_since(trial, time, LONGEST_TRIAL) ? EJECTED : DUE;
}

// Returns 1 if the caller's connection is the trial of a server.
static __always_inline int try_again(const struct vip *vip, struct troubles *troubles, __u32 id, __u32 time)
{
	struct lock *lock = lock_of_vip(vip);
	struct failing *failing = failing_of(troubles, id);
	if (!lock || !failing)
		return 0;
	int is_trial = 0;
	bpf_spin_lock(&lock->lock);
	if (!failing->trial || !is_since(failing->trial, time, LONGEST_TRIAL)) {
		failing->trial = time;
		is_trial = 1;
	}
	bpf_spin_unlock(&lock->lock);
	return is_trial;
}

// Chooses a server: of two that are drawn by weight the one with fewer connections for its weight. The socket of a
// datagram is not counted, so datagrams go to one that is drawn. Servers that are ejected for the client are passed
// over; `trial` is set if this is the connection that shows if one of them is to come back.
static __always_inline enum verdict choose(struct bpf_sock_addr *context, const struct vip *vip, int connects,
					   struct slot **chosen, int *trial)
{
	int may_eject = connects && eject_after && vip->protocol == IPPROTO_TCP;
	struct slot *any = NULL;
	// Reading an element while it is replaced is rare. Three times in a row does not happen in practice. And of the
	// servers at most half are ejected, so that both of two are so again and again only once in thousands of times.
	for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
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
		// The whole part of this is one random number, and what is left of it another: a second call of the
		// generator costs more than the multiplication.
		__u64 random = bpf_get_prandom_u32() * active;
		__u64 first = random >> 32;
		struct slot *slot = slot_of(vip, base + first);
		if (!slot)
			continue;
		__u16 flags = slot->flags;
		if (flags & WEIGHTED) {
			first = drawn(base, first);
			slot = slot_of(vip, base + first);
			if (!slot)
				continue;
		}
		if (connects && active > 1) {
			__u64 second;
			if (flags & WEIGHTED) {
				// Perhaps the first again: of two servers, one may be worth more than half.
				second = drawn(base, (bpf_get_prandom_u32() * active) >> 32);
			} else {
				second = ((__u32)random * (active - 1)) >> 32;
				if (second >= first)
					second++;
			}
			struct slot *other = slot_of(vip, base + second);
			if (!other)
				continue;
			int ejects = may_eject && !(flags & UNEJECTED);
			struct troubles *own = NULL;
			if (ejects && (is_suspect(slot->id) || is_suspect(other->id))) {
				struct client client = { bpf_get_netns_cookie(context), *vip, 0 };
				own = bpf_map_lookup_elem(&troubles, &client);
			}
			int is_less = load_of(other, slot) < load_of(slot, other);
			if (own) {
				any = slot;
				__u32 time = now();
				enum standing standing = standing_of(own, slot->id, time);
				enum standing of_other = standing_of(own, other->id, time);
				if (standing == EJECTED || (of_other != EJECTED && is_less)) {
					slot = other;
					standing = of_other;
				}
				if (standing == EJECTED)
					continue;
				*trial = standing == DUE;
				// Another connection may have begun the trial just now.
				if (*trial && !try_again(vip, own, slot->id, time)) {
					*trial = 0;
					continue;
				}
			} else if (is_less) {
				slot = other;
			}
		}
		*chosen = slot;
		return SEND;
	}
	*chosen = any;
	return any ? SEND : REFUSE;
}

// Adds a difference to the connections of a server.
static __always_inline void add(__u32 id, __u64 difference)
{
	__u64 *count = bpf_map_lookup_elem(&counts, &id);
	if (count)
		__sync_fetch_and_add(count, difference);
}

// Returns 1 if the socket was counted, which it is not from now on.
static __always_inline int uncount(struct taken *taken)
{
	if (!taken->counted)
		return 0;
	// Only its own calls end the count of a datagram socket.
	if (taken->vip.protocol != IPPROTO_TCP) {
		taken->counted = 0;
		return 1;
	}
	// A connection may be reset while its descriptor is closed, and only one of both may take it from the count.
	struct lock *lock = lock_of(taken->id);
	if (!lock)
		return 0;
	bpf_spin_lock(&lock->lock);
	int counted = taken->counted;
	taken->counted = 0;
	bpf_spin_unlock(&lock->lock);
	return counted;
}

// Stops counting a socket.
static __always_inline void release(struct taken *taken)
{
	if (uncount(taken))
		add(taken->id, -1);
}

// Notes the server of a connected UDP socket, or NOWHERE. The latter is noted of each socket that had a server: what
// an earlier version of these programs has noted elsewhere holds no more then.
static __always_inline void note_server(struct bpf_sock *sk, __u64 cookie, __u32 id)
{
	struct datagram *datagram = bpf_sk_storage_get(&connected, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!datagram)
		return;
	datagram->cookie = cookie;
	datagram->id = id;
}

// Returns 1 if a kept server still takes datagrams for its VIP.
static __always_inline int is_serving(const struct kept *kept)
{
	__u32 term = term_of(kept->id);
	return term && term == kept->term;
}

static __always_inline int is_recent(const struct kept *kept, __u32 time)
{
	return time - kept->used <= udp_timeout;
}

static __always_inline int is_for(const struct kept *kept, const struct vip *vip)
{
	return kept->vip_port == vip->port && kept->port && same(&kept->vip, &vip->address);
}

static __always_inline int is_at(const struct kept *kept, const struct address *address, __u16 port)
{
	return kept->port == port && same(&kept->address, address);
}

// Returns a kept server by its place; NULL if there is no such place.
static __always_inline struct kept *kept_at(struct keeps *keeps, __u64 place)
{
	if (place >= KEPT)
		return NULL;
	// Otherwise the compiler computes the address before it compares, and the verifier refuses that.
	asm volatile("" : "+r"(place));
	return &keeps->kept[place];
}

// Finds the server that a socket keeps for a VIP; NULL if it has none, or that one is to be used no longer.
static __always_inline struct kept *kept_for(struct keeps *keeps, const struct vip *vip, __u32 time)
{
	keeps->place = KEPT;
	for (__u32 i = 0; i < KEPT; i++) {
		struct kept *kept = &keeps->kept[i];
		if (is_for(kept, vip) && is_recent(kept, time) && is_serving(kept)) {
			keeps->place = i;
			break;
		}
	}
	return kept_at(keeps, keeps->place);
}

// Finds a place for another server of a VIP; NULL if there is none. What the socket has kept for the VIP is only
// known as its sender from now on.
static __always_inline struct kept *place_for(struct keeps *keeps, const struct vip *vip, __u32 time)
{
	// Free places come first, then unused ones. An answer of the VIP's former server may be on its way, so that
	// one goes last.
	keeps->place = KEPT;
	keeps->newest = 0;
	for (__u32 i = 0; i < KEPT; i++) {
		struct kept *kept = &keeps->kept[i];
		if (is_for(kept, vip))
			kept->term = 0;
		__u32 worth = !kept->port ? 3 : !is_recent(kept, time) ? 2 : is_for(kept, vip) ? 1 : 0;
		if (worth <= keeps->newest)
			continue;
		keeps->newest = worth;
		keeps->place = i;
	}
	return kept_at(keeps, keeps->place);
}

static __always_inline void note_question(struct keeps *keeps, __u32 of, __u32 time)
{
	struct question *question = &keeps->questions[keeps->asked % QUESTIONS];
	question->at = time;
	question->of = of;
	keeps->asked++;
}

// Notes a question to the VIP of a kept server. `of` is the place of that server, or ANSWERED.
static __always_inline void note_asked(struct keeps *keeps, struct kept *kept, __u32 of, __u32 time)
{
	note_question(keeps, of, time);
	kept->asked = keeps->asked;
	kept->used = time;
}

// Returns a number that stands for an address without a kept VIP among the questions.
static __always_inline __u32 mark_of(const struct address *address, __u16 port)
{
	__u32 words = address->words[0] ^ address->words[1] ^ address->words[2] ^ address->words[3];
	return (words ^ port * 0x9e3779b1) | MARK;
}

// Notes that a socket turns to a server otherwise than by the VIPs in its storage.
static __always_inline void note_otherwise(struct keeps *keeps, const struct address *address, __u16 port)
{
	for (__u32 i = 0; i < KEPT; i++) {
		struct kept *kept = &keeps->kept[i];
		if (is_at(kept, address, port))
			kept->asked = 0;
	}
}

// Servers that a socket keeps beyond the first; NULL if it has none of them.
static __always_inline struct more *more_of(struct bpf_sock *sk, const struct keeps *keeps)
{
	return keeps->overflows ? bpf_sk_storage_get(&more, sk, NULL, 0) : NULL;
}

// Notes that a socket turns to an address which is no VIP, but may be that of a server that it keeps.
static __always_inline void note_direct(struct bpf_sock *sk, struct keeps *keeps, const struct vip *to)
{
	note_otherwise(keeps, &to->address, to->port);
	struct more *more = more_of(sk, keeps);
	if (!more)
		return;
	for (__u32 i = 0; i < MORE; i++) {
		struct kept *kept = &more->kept[i];
		if (is_at(kept, &to->address, to->port))
			kept->asked = 0;
	}
}

// Takes the first open question that a datagram may be the answer to, of those to the kept servers in
// `keeps->places` and to the address that `mark` stands for. Returns what it was a question of, or ANSWERED.
static __always_inline __u32 take_question(struct keeps *keeps, __u32 mark, __u32 time)
{
	if (keeps->asked - keeps->first > QUESTIONS)
		keeps->first = keeps->asked - QUESTIONS;
	__u32 first = keeps->first;
	keeps->place = ANSWERED;
	for (__u32 i = 0; i < QUESTIONS; i++) {
		__u32 number = first + i;
		if (number == keeps->asked)
			break;
		struct question *question = &keeps->questions[number % QUESTIONS];
		__u32 of = question->of;
		if (of != ANSWERED && time - question->at <= LONGEST_WAIT) {
			if (of < KEPT ? !((keeps->places >> of) & 1) : of != mark)
				continue;
			keeps->place = of;
			question->of = ANSWERED;
			break;
		}
		// What is not open at the start never has to be looked at again.
		if (number == keeps->first)
			keeps->first = number + 1;
	}
	return keeps->place;
}

// Returns one of the servers beyond the first by its place; NULL if there is no such place.
static __always_inline struct kept *more_at(struct more *more, __u64 place)
{
	if (place >= MORE)
		return NULL;
	asm volatile("" : "+r"(place));
	return &more->kept[place];
}

// Finds the server of a VIP among those beyond the first, or else a place for one: a free one, or that which was used
// least recently. `is_kept` tells which.
static __always_inline struct kept *place_beyond(struct more *more, const struct keeps *keeps, const struct vip *vip,
						 __u32 time, int *is_kept)
{
	more->place = MORE;
	more->best = 0;
	for (__u32 i = 0; i < MORE; i++) {
		struct kept *kept = &more->kept[i];
		if (is_for(kept, vip) && is_recent(kept, time) && is_serving(kept)) {
			more->place = i;
			break;
		}
		// Many may have been used within one unit of time, and the numbers of their questions tell them apart.
		__u64 age = (__u64)(time - kept->used) << 32 | (keeps->asked - kept->asked);
		if (!kept->port)
			age = 0xffffffffffffffff;
		if (age < more->best)
			continue;
		more->best = age;
		more->place = i;
	}
	struct kept *kept = more_at(more, more->place);
	*is_kept = kept && is_for(kept, vip) && is_recent(kept, time) && is_serving(kept);
	return kept;
}

// Notes a question to the VIP of a server beyond the first.
static __always_inline void note_beyond(struct keeps *keeps, struct kept *kept, __u32 time)
{
	note_otherwise(keeps, &kept->address, kept->port);
	note_question(keeps, mark_of(&kept->address, kept->port), time);
	kept->asked = keeps->asked;
	kept->used = time;
}

// Finds the server that an unconnected socket keeps for a VIP, or lets it keep the one in `slot`.
static __always_inline void keep(struct bpf_sock *sk, struct keeps *keeps, const struct vip *vip,
				 const struct slot *slot, struct target *target)
{
	__u32 time = now();
	*target = (struct target){ &slot->address, slot->port };
	struct kept *kept = kept_for(keeps, vip, time);
	if (kept) {
		note_asked(keeps, kept, keeps->place, time);
		*target = (struct target){ &kept->address, kept->port };
		return;
	}
	struct kept chosen = { vip->address, slot->address, vip->port, slot->port, slot->id, term_of(slot->id), time, 0 };
	// A VIP that is kept beyond the first stays there, as long as its server does.
	struct more *rest = more_of(sk, keeps);
	int is_kept = 0;
	struct kept *beyond = rest ? place_beyond(rest, keeps, vip, time, &is_kept) : NULL;
	if (!is_kept) {
		kept = place_for(keeps, vip, time);
		if (kept) {
			*kept = chosen;
			note_asked(keeps, kept, keeps->place, time);
			return;
		}
		if (!rest) {
			keeps->overflows = 1;
			rest = bpf_sk_storage_get(&more, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
			beyond = rest ? place_beyond(rest, keeps, vip, time, &is_kept) : NULL;
		}
		if (beyond)
			*beyond = chosen;
	}
	if (!beyond)
		return;
	note_beyond(keeps, beyond, time);
	*target = (struct target){ &beyond->address, beyond->port };
}

// Lets a UDP socket that was connected keep its server. No program runs when it disconnects, or is ended.
static __always_inline void settle(struct bpf_sock_addr *context, struct bpf_sock *sk, struct taken *taken)
{
	__u32 time = now();
	struct vip vip = taken->vip;
	struct keeps *keeps = bpf_sk_storage_get(&unconnected, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (keeps) {
		struct kept *kept = kept_for(keeps, &vip, time);
		if (!kept || !is_at(kept, &taken->address, taken->port))
			kept = place_for(keeps, &vip, time);
		if (kept) {
			*kept = (struct kept){ vip.address, taken->address, vip.port, taken->port, taken->id,
					       term_of(taken->id) };
			// What it asked while it was connected is unknown. Mostly that was answered.
			note_asked(keeps, kept, ANSWERED, time);
		}
	}
	release(taken);
	note_server(sk, bpf_get_socket_cookie(context), NOWHERE);
	bpf_sk_storage_delete(&sockets, sk);
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
	int is_udp = vip.protocol == IPPROTO_UDP;
	struct slot *slot = NULL;
	int trial = 0;
	enum verdict verdict = choose(context, &vip, 1, &slot, &trial);
	struct bpf_sock *sk = context->sk;
	// No VIP has port 0.
	if (sk && !vip.port && is_udp)
		announce(sk);
	if (verdict != PASS && is_exempt()) {
		verdict = PASS;
		slot = NULL;
	}
	// A refused call changes nothing: a connected UDP socket keeps its peer.
	if (verdict == REFUSE)
		return verdict;
	__u32 id = 0;
	if (slot) {
		*target = (struct target){ &slot->address, slot->port };
		id = slot->id;
	}
	if (!sk)
		return verdict;
	struct keeps *keeps = is_udp ? bpf_sk_storage_get(&unconnected, sk, NULL, 0) : NULL;
	if (keeps && !slot) {
		note_direct(sk, keeps, &vip);
		// No program sees what a connected socket asks, so the next answer may be one to that.
		keeps->first = keeps->asked;
	} else if (keeps) {
		struct kept *kept = kept_for(keeps, &vip, now());
		if (kept) {
			*target = (struct target){ &kept->address, kept->port };
			id = kept->id;
		}
	}
	// The socket may have been given a server before: a UDP socket may connect again, and so may a TCP
	// socket whose connection was refused.
	struct taken *taken =
		bpf_sk_storage_get(&sockets, sk, NULL, verdict == SEND ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (!taken)
		return verdict;
	release(taken);
	int is_sent = verdict == SEND && target->address;
	if (is_udp)
		note_server(sk, bpf_get_socket_cookie(context), is_sent ? id : NOWHERE);
	if (!is_sent) {
		bpf_sk_storage_delete(&sockets, sk);
		return verdict;
	}
	taken->vip = vip;
	taken->address = *target->address;
	taken->port = target->port;
	taken->id = id;
	taken->counted = trial ? COUNTED | TRIAL : COUNTED;
	if (eject_after && !has_namespace && !is_udp) {
		__u64 *namespace = bpf_sk_storage_get(&namespaces, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
		if (namespace)
			*namespace = bpf_get_netns_cookie(context);
	}
	add(taken->id, 1);
	return verdict;
}

static __always_inline enum verdict on_send(struct bpf_sock_addr *context, struct address address,
					    struct target *target)
{
	if (!is_balanced(context->protocol))
		return PASS;
	struct vip vip = vip_of(context, address);
	struct bpf_sock *sk = context->sk;
	struct taken *taken = sk ? bpf_sk_storage_get(&sockets, sk, NULL, 0) : NULL;
	if (taken && sk->state != BPF_TCP_ESTABLISHED) {
		settle(context, sk, taken);
	} else if (taken && same_vip(&taken->vip, &vip)) {
		// A connected socket receives from its own server only, so a datagram to its VIP must go there.
		*target = (struct target){ &taken->address, taken->port };
		return SEND;
	}
	struct slot *slot = NULL;
	int trial = 0;
	enum verdict verdict = choose(context, &vip, 0, &slot, &trial);
	if (verdict != PASS && is_exempt())
		return PASS;
	if (verdict == REFUSE)
		return verdict;
	struct keeps *keeps = sk ? bpf_sk_storage_get(&unconnected, sk, NULL, 0) : NULL;
	if (!slot) {
		if (keeps) {
			note_direct(sk, keeps, &vip);
			note_question(keeps, mark_of(&vip.address, vip.port), now());
		}
		return verdict;
	}
	if (sk && !keeps)
		keeps = bpf_sk_storage_get(&unconnected, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (keeps)
		keep(sk, keeps, &vip, slot, target);
	else
		*target = (struct target){ &slot->address, slot->port };
	return verdict;
}

// Server of a connected socket, if `address` and the context's port are those of that server; otherwise NULL.
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

// Finds the VIP by which an unconnected socket asked the sender of a datagram; returns 0 if it asked the sender
// itself, or none is known. Answers come in the order of the questions; a datagram that answers none is of whom
// was asked last.
static __always_inline struct kept *asked_by(struct keeps *keeps, const struct address *from, __u16 port)
{
	__u32 time = now();
	keeps->places = 0;
	keeps->place = KEPT;
	keeps->newest = 0;
	for (__u32 i = 0; i < KEPT; i++) {
		struct kept *kept = &keeps->kept[i];
		// Another task may have the address of a server that is gone.
		if (!is_at(kept, from, port) || (!is_recent(kept, time) && !is_serving(kept)))
			continue;
		keeps->places |= 1 << i;
		if (kept->asked > keeps->newest) {
			keeps->newest = kept->asked;
			keeps->place = i;
		}
	}
	__u32 last = keeps->place;
	__u32 of = take_question(keeps, mark_of(from, port), time);
	struct kept *kept = kept_at(keeps, of == ANSWERED ? last : of);
	if (!kept)
		return NULL;
	if (is_serving(kept))
		kept->used = time;
	return kept;
}

// The same among the servers beyond the first, of which one was asked last.
static __always_inline struct kept *asked_beyond(struct more *more, const struct address *from, __u16 port)
{
	__u32 time = now();
	more->place = MORE;
	more->best = 0;
	for (__u32 i = 0; i < MORE; i++) {
		struct kept *kept = &more->kept[i];
		if (kept->asked <= more->best || !is_at(kept, from, port))
			continue;
		// Another task may have the address of a server that is gone.
		if (!is_recent(kept, time) && !is_serving(kept))
			continue;
		more->best = kept->asked;
		more->place = i;
	}
	struct kept *kept = more_at(more, more->place);
	if (kept && is_serving(kept))
		kept->used = time;
	return kept;
}

// Finds the VIP to show instead of a server that sent a datagram; returns 0 if there is none.
static __always_inline int from_vip(struct bpf_sock_addr *context, const struct address *from,
				    struct shown *shown)
{
	struct bpf_sock *sk = context->sk;
	if (!sk)
		return 0;
	__u16 port = context->user_port;
	struct taken *taken = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (taken && sk->state != BPF_TCP_ESTABLISHED) {
		settle(context, sk, taken);
	} else if (taken && taken->port == port && same(&taken->address, from)) {
		*shown = (struct shown){ taken->vip.address, taken->vip.port };
		return 1;
	}
	struct keeps *keeps = bpf_sk_storage_get(&unconnected, sk, NULL, 0);
	if (!keeps)
		return 0;
	struct kept *kept = asked_by(keeps, from, port);
	struct more *more = kept ? NULL : more_of(sk, keeps);
	if (more)
		kept = asked_beyond(more, from, port);
	if (!kept)
		return 0;
	*shown = (struct shown){ kept->vip, kept->vip_port };
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
	struct shown shown = { 0 };
	if (from_vip(context, &from, &shown))
		set4(context, &shown.address, shown.port);
	return 1;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *context)
{
	struct address from = address6(context);
	struct shown shown = { 0 };
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
		release(taken);
	// Announcers are UDP sockets.
	if (sk->protocol == IPPROTO_UDP)
		withdraw(sk);
	return 1;
}

// Element of the map `vip_connects` for a connection; NULL if its VIP has none.
static __always_inline struct vip_connects *vip_connects_of(const struct connects *own, const struct taken *taken)
{
	__u32 index = own->vip - 1;
	struct vip_connects *found = bpf_map_lookup_elem(&vip_connects, &index);
	// Another VIP may have the element by now.
	return found && same_vip(&found->vip, &taken->vip) ? found : NULL;
}

// Class of a time in microseconds.
static __always_inline __u32 class_of(__u64 time)
{
	__u32 class = 0;
	time >>= LATENCY_SHIFT;
#pragma unroll
	for (int step = 8; step; step /= 2) {
		if (time >> step) {
			time >>= step;
			class += step;
		}
	}
	class += time > 0;
	return class < LATENCIES ? class : LATENCIES - 1;
}

// Returns the network namespace of a connecting socket; 0 if an earlier version of these programs has sent it.
static __always_inline __u64 namespace_of(struct bpf_sock_ops *context, struct bpf_sock *sk)
{
	if (has_namespace)
		return bpf_get_netns_cookie(context);
	__u64 *namespace = bpf_sk_storage_get(&namespaces, sk, NULL, 0);
	return namespace ? *namespace : 0;
}

// Returns 1 if a network namespace may begin another element of `troubles`.
static __always_inline int takes_share(__u64 namespace, __u32 time)
{
	struct share *share = bpf_map_lookup_elem(&shares, &namespace);
	if (!share) {
		struct share first = { time, 1 };
		bpf_map_update_elem(&shares, &namespace, &first, BPF_ANY);
		return 1;
	}
	// What is older is remembered no more.
	if (!is_remembered(share->since, time)) {
		share->since = time;
		share->begun = 0;
	}
	if (share->begun >= SHARE)
		return 0;
	__sync_fetch_and_add(&share->begun, 1);
	return 1;
}

// Servers that have failed for the client of a socket.
static __always_inline struct troubles *troubles_of(struct bpf_sock_ops *context, struct bpf_sock *sk,
						    const struct taken *taken, int create)
{
	struct client client = { namespace_of(context, sk), taken->vip, 0 };
	if (!client.namespace)
		return NULL;
	struct troubles *own = bpf_map_lookup_elem(&troubles, &client);
	if (own || !create)
		return own;
	__u32 first = 0;
	struct troubles *none = bpf_map_lookup_elem(&no_troubles, &first);
	if (!none || !takes_share(client.namespace, now()))
		return NULL;
	bpf_map_update_elem(&troubles, &client, none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&troubles, &client);
}

// Notes that a server has answered a client. Whatever it did before, it takes connections from now on.
static __always_inline void note_success(struct bpf_sock_ops *context, struct bpf_sock *sk, const struct taken *taken)
{
	if (!eject_after || !is_suspect(taken->id))
		return;
	struct troubles *own = troubles_of(context, sk, taken, 0);
	struct failing *failing = own ? failing_of(own, taken->id) : NULL;
	struct lock *lock = lock_of_vip(&taken->vip);
	if (!failing || !lock)
		return;
	bpf_spin_lock(&lock->lock);
	failing->failures = 0;
	failing->ejections = 0;
	failing->trial = 0;
	bpf_spin_unlock(&lock->lock);
}

// Notes that a server has refused a client, or has not answered its first SYN.
static __always_inline void note_failure(struct bpf_sock_ops *context, struct bpf_sock *sk, const struct taken *taken,
					 int is_trial)
{
	__u32 id = taken->id, time = now(), stay = stay_of(id);
	if (!eject_after || !stay)
		return;
	__u64 *word = bpf_map_lookup_elem(&vips, &taken->vip);
	struct slot *any = word ? slot_of(&taken->vip, (__u32)*word) : NULL;
	if (any && any->flags & UNEJECTED)
		return;
	struct failures *known = bpf_map_lookup_elem(&failures, &id);
	__u32 serving = word ? (*word >> 32) & 0xffff : 0;
	// The last one is never ejected.
	if (serving < 2 || !known)
		return;
	struct troubles *own = troubles_of(context, sk, taken, 1);
	if (!own)
		return;
	known->failed = time;
	forget_failing(own, time);
	struct lock *lock = lock_of_vip(&taken->vip);
	if (!lock)
		return;
	bpf_spin_lock(&lock->lock);
	struct failing *failing = failing_of(own, id);
	if (!failing) {
		failing = place_for_failing(own);
		if (failing)
			*failing = (struct failing){ id + 1, stay };
	}
	if (failing) {
		failing->failed = time;
		__u32 is_ejected = failing->ejections;
		if (!is_ejected && failing->failures < 0xffff)
			failing->failures++;
		// Those that began before it was ejected are no news.
		int is_due = is_ejected ? is_trial : failing->failures >= eject_after &&
							     (ejected(own) + 1) * 2 <= serving;
		if (is_due) {
			__u64 duration = (__u64)eject_time << (is_ejected & 15);
			failing->until = time + (duration < eject_limit ? duration : eject_limit);
			failing->trial = 0;
			if (is_ejected < 15)
				failing->ejections = is_ejected + 1;
		}
	}
	bpf_spin_unlock(&lock->lock);
}

// Counts what becomes of the connections that the programs above have sent somewhere, as the kernel sees it.
SEC("sockops")
int sock_ops(struct bpf_sock_ops *context)
{
	__u32 event = context->op;
	if (event != BPF_SOCK_OPS_TCP_CONNECT_CB && event != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB &&
	    event != BPF_SOCK_OPS_RTO_CB && event != BPF_SOCK_OPS_STATE_CB)
		return 1;
	// Of a connection's changes of state only its end matters.
	int is_end = event == BPF_SOCK_OPS_STATE_CB;
	if (is_end && context->args[1] != BPF_TCP_CLOSE)
		return 1;
	struct bpf_sock *sk = context->sk;
	if (!sk)
		return 1;
	struct taken *taken = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (!taken)
		return 1;
	__u32 id = taken->id;
	int is_trial = taken->counted & TRIAL;
	if (is_end) {
		// No other program sees the end of sockets that are the kernel's, as those of multipath TCP are.
		if (uncount(taken))
			add(id, -1);
		if (context->args[0] != BPF_TCP_SYN_SENT)
			return 1;
	}
	struct connects *own = bpf_map_lookup_elem(&connects, &id);
	if (!own)
		return 1;
	struct vip_connects *all = vip_connects_of(own, taken);
	if (event == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		__sync_fetch_and_add(&own->begun, 1);
		if (all)
			__sync_fetch_and_add(&all->begun, 1);
		// They are not taken back: another program may have asked for the same.
		bpf_sock_ops_cb_flags_set(context, context->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTO_CB_FLAG |
							   BPF_SOCK_OPS_STATE_CB_FLAG);
	} else if (event == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB) {
		__sync_fetch_and_add(&own->established, 1);
		note_success(context, sk, taken);
		if (!all)
			return 1;
		__sync_fetch_and_add(&all->established, 1);
		// The kernel has measured the answer to a SYN that was sent once.
		__u64 time = context->srtt_us >> 3;
		__u64 *began = context->total_retrans ? bpf_sk_storage_get(&late, sk, NULL, 0) : NULL;
		if (began && *began) {
			time = (bpf_ktime_get_ns() - *began) / 1000;
			*began = 0;
		}
		__u32 class = class_of(time);
		// The compiler may compare a copy, and the verifier knows nothing of the other then.
		asm volatile("" : "+r"(class));
		if (class < LATENCIES)
			__sync_fetch_and_add(&all->latencies[class], 1);
	} else if (event == BPF_SOCK_OPS_RTO_CB) {
		if (context->state != BPF_TCP_SYN_SENT)
			return 1;
		__u64 *began = bpf_sk_storage_get(&late, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
		if (began && !*began) {
			*began = bpf_ktime_get_ns() - FIRST_TIMEOUT;
			note_failure(context, sk, taken, is_trial);
		}
		// The third argument is set if the kernel gives up.
		if (context->args[2])
			return 1;
		__sync_fetch_and_add(&own->retransmissions, 1);
		if (all)
			__sync_fetch_and_add(&all->retransmissions, 1);
	} else {
		__u64 *began = bpf_sk_storage_get(&late, sk, NULL, 0);
		// A program that closes its socket before an answer came looks the same, but for what was received.
		if (context->segs_in) {
			__sync_fetch_and_add(&own->refused, 1);
			// It was noted when the first SYN was not answered.
			if (!began || !*began)
				note_failure(context, sk, taken, is_trial);
			if (all)
				__sync_fetch_and_add(&all->refused, 1);
		} else if (began && *began) {
			__sync_fetch_and_add(&own->timed_out, 1);
			if (all)
				__sync_fetch_and_add(&all->timed_out, 1);
		}
		// The socket may connect again.
		if (began)
			*began = 0;
	}
	return 1;
}

// What an iterator over the storage of sockets gives to its program.
struct stored {
	__u64 meta;
	__u64 map;
	__u64 socket;
	// NULL at the end.
	struct datagram *value;
};

// Lists connected UDP sockets whose server takes nothing new. The sockets themselves are not looked at, which the
// kernel allows to GPL programs alone.
SEC("iter/bpf_sk_storage_map")
int list_datagrams(struct stored *context)
{
	struct datagram *datagram = context->value;
	__u32 first = 0;
	struct listing *own = bpf_map_lookup_elem(&listing, &first);
	if (!datagram || !own)
		return 0;
	if (!own->all && (datagram->id == NOWHERE || term_of(datagram->id)))
		return 0;
	__u32 index = own->found - own->skipped;
	own->found++;
	if (own->found <= own->skipped)
		return 0;
	struct datagram *place = bpf_map_lookup_elem(&listed, &index);
	if (place) {
		place->cookie = datagram->cookie;
		place->id = datagram->id;
	}
	return 0;
}

char licence[] SEC("license") = "Apache-2.0";
