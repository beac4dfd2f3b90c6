/* rcpeer.c - drives one verbs queue pair by hand, without rdma_cm and without any exchange.
 *
 * The remote QPN, PSN and GID are given as plain numbers, so the other end may be anything that
 * speaks RoCEv2: another rcpeer in a second VM, or a user-space model of an adapter.
 *
 *   rcpeer serve SOCK [opts]      open the device, make PD/CQ/QP, then take commands from SOCK (AF_UNIX)
 *   rcpeer do SOCK 'CMDS'         send commands to a serving rcpeer and print what it answers
 *   rcpeer run [opts] 'CMDS'      one shot: open, run the commands, exit
 * opts: dev=rxe0 gid=1 type=rc|uc|ud psn=N sq=N rq=N sge=N inline=N cq=N len=N access=LETTERS odp=0|1 ex=0|1 sigall=0|1
 *   (MR 0, of len bytes, is made at the start.  access letters: l local-write r remote-read w remote-write
 *    a remote-atomic b mw-bind z zero-based g flush-global p flush-persistent; odp=1 adds ON_DEMAND)
 *
 * Commands, separated by ';' or newlines; arguments are key=value, numbers in any C base:
 *   info                                        LOCAL line, then one MR line per region
 *   connect qpn= psn= gid= [mtu=1024 timeout=14 retry=7 rnr=7 minrnr=12 rd=16 drd=16 hop=64 tclass=0 flow=0 sgid= qkey= dacc=lrwa]
 *                                               RESET->INIT->RTR->RTS (UD: makes the address handle)
 *   init / rtr ... / rts ...                    the same, one step at a time (same arguments)
 *   mr id= len= [access=lrwa odp=0]             register another region;  dereg id=
 *   mw id= [type=2]                             allocate a memory window; bind it with post op=bind
 *   advise mr= off= len= [write=1]              ibv_advise_mr prefetch (ODP)
 *   post op=send|sendimm|sendinv|write|writeimm|read|cas|faa|awrite|flush|inv|bind
 *        [mr=0 off=0 len=0 sges=1 raddr= rkey= imm= inv= cmp= swap= add= val= id= inline=0 fence=0 sol=0 sig=1 n=1 level=0 ftype=1 mw= access=]
 *   recv [mr=0 off=0 len=0 sges=1 id= n=1 step=0]
 *   wait [n=1 ms=5000]                          wait for n completions (event driven), print a WC line for each
 *   expect [ms=500]                             print what completes within ms; not an error if nothing does
 *   fill mr= off= len= seed=                    byte i = (seed + 7*i + 13*(i>>8)) & 255
 *   check mr= off= len= seed=                   CHECK ok | CHECK bad at=..
 *   poke mr= off= hex=..   /  dump mr= off= len=
 *   query                                       state, PSNs, path
 *   modify state=reset|init|rtr|rts|sqd|err
 *   async [ms=0]                                asynchronous events
 *   counters                                    the port's hw_counters (non-zero ones)
 *   sleep ms=
 *   quit
 * Every command answers lines; an error line starts with ERR.  'do' exits 1 if there was one.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NMR 32
static struct { void *buf; size_t len; struct ibv_mr *mr; } M[NMR];
static struct ibv_mw *MW[NMR];
static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_comp_channel *chan;
static struct ibv_cq *cq;
static struct ibv_qp *qp;
static struct ibv_qp_ex *qpx;
static struct ibv_ah *ah;
static enum ibv_qp_type qtype = IBV_QPT_RC;
static uint32_t my_psn, ud_rqpn, ud_qkey = 0x11111111;
static int gidx = 1;
static char devname[64] = "rxe0";
static uint64_t next_id = 1;
static FILE *out;
static int failed;

static void say(const char *f, ...) { va_list a; va_start(a, f); vfprintf(out, f, a); va_end(a); fputc('\n', out); }
static void err(const char *f, ...) { va_list a; va_start(a, f); fputs("ERR ", out); vfprintf(out, f, a); va_end(a); fputc('\n', out); failed = 1; }

/* key=value arguments */
static char *AV[64]; static int AC;
static const char *arg(const char *k)
{
	size_t n = strlen(k);
	for (int i = 0; i < AC; i++) if (!strncmp(AV[i], k, n) && AV[i][n] == '=') return AV[i] + n + 1;
	return NULL;
}
static uint64_t num(const char *k, uint64_t d) { const char *s = arg(k); return s && *s ? strtoull(s, NULL, 0) : d; }
static int split(char *s) { AC = 0; for (char *t = strtok(s, " \t\r\n"); t && AC < 64; t = strtok(NULL, " \t\r\n")) AV[AC++] = t; return AC; }

static int access_of(const char *s)
{
	int a = 0;
	for (; *s; s++) switch (*s) {
		case 'l': a |= IBV_ACCESS_LOCAL_WRITE; break;
		case 'r': a |= IBV_ACCESS_REMOTE_READ; break;
		case 'w': a |= IBV_ACCESS_REMOTE_WRITE; break;
		case 'a': a |= IBV_ACCESS_REMOTE_ATOMIC; break;
		case 'b': a |= IBV_ACCESS_MW_BIND; break;
		case 'z': a |= IBV_ACCESS_ZERO_BASED; break;
		case 'g': a |= IBV_ACCESS_FLUSH_GLOBAL; break;
		case 'p': a |= IBV_ACCESS_FLUSH_PERSISTENT; break;
		default: break;
	}
	return a;
}
static uint64_t now_ms(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000ull + t.tv_nsec / 1000000; }

static int mk_mr(int id, size_t len, const char *acc, int odp)
{
	if (id < 0 || id >= NMR || M[id].mr) { err("mr id"); return -1; }
	void *b = mmap(NULL, len ? len : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b == MAP_FAILED) { err("mmap %s", strerror(errno)); return -1; }
	if (!odp) memset(b, 0, len);
	struct ibv_mr *mr = ibv_reg_mr(pd, b, len, access_of(acc) | (odp ? IBV_ACCESS_ON_DEMAND : 0));
	if (!mr) { err("reg_mr %s", strerror(errno)); munmap(b, len ? len : 1); return -1; }
	M[id].buf = b; M[id].len = len; M[id].mr = mr;
	return 0;
}
static const char *gidstr(union ibv_gid *g, char *b) { inet_ntop(AF_INET6, g, b, INET6_ADDRSTRLEN); return b; }
static int parse_gid(const char *s, union ibv_gid *g)
{
	char t[64];
	if (!strchr(s, ':')) { snprintf(t, sizeof t, "::ffff:%s", s); s = t; }     /* plain IPv4 */
	return inet_pton(AF_INET6, s, g) == 1 ? 0 : -1;
}
static const char *mtu_name(enum ibv_mtu m) { static const char *n[] = {"?", "256", "512", "1024", "2048", "4096"}; return n[m <= 5 ? m : 0]; }
static enum ibv_mtu mtu_of(unsigned m) { switch (m) { case 256: return 1; case 512: return 2; case 2048: return 4; case 4096: return 5; default: return 3; } }

static void c_info(void)
{
	union ibv_gid g; char b[64]; struct ibv_port_attr pa;
	ibv_query_gid(ctx, 1, gidx, &g);
	ibv_query_port(ctx, 1, &pa);
	say("LOCAL type=%s qpn=0x%06x psn=0x%06x gid=%s gididx=%d mtu=%s state=%d", qtype == IBV_QPT_RC ? "rc" : qtype == IBV_QPT_UC ? "uc" : "ud",
	    qp->qp_num, my_psn, gidstr(&g, b), gidx, mtu_name(pa.active_mtu), qp->state);
	for (int i = 0; i < NMR; i++) if (M[i].mr)
		say("MR id=%d addr=0x%" PRIx64 " len=%zu lkey=0x%08x rkey=0x%08x", i, (uint64_t)(uintptr_t)M[i].buf, M[i].len, M[i].mr->lkey, M[i].mr->rkey);
}
static int modify(struct ibv_qp_attr *a, int mask, const char *what)
{
	int r = ibv_modify_qp(qp, a, mask);
	if (r) { err("modify %s: %s", what, strerror(r)); return r; }
	say("QP %s", what);
	return 0;
}
static int c_init(void)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_INIT, .pkey_index = 0, .port_num = 1 };
	const char *dacc = arg("dacc");
	a.qp_access_flags = access_of(dacc ? dacc : "lrwagp") & ~IBV_ACCESS_ZERO_BASED;
	a.qkey = num("qkey", ud_qkey); ud_qkey = a.qkey;
	return modify(&a, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | (qtype == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS), "INIT");
}
static int c_rtr(void)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_RTR };
	union ibv_gid g;
	if (!arg("gid") || parse_gid(arg("gid"), &g)) { err("gid="); return -1; }
	struct ibv_ah_attr av = { .is_global = 1, .port_num = 1, .sl = num("sl", 0),
		.grh = { .dgid = g, .sgid_index = num("sgid", gidx), .hop_limit = num("hop", 64), .traffic_class = num("tclass", 0), .flow_label = num("flow", 0) } };
	if (qtype == IBV_QPT_UD) {
		ud_rqpn = num("qpn", 0);
		if (ah) ibv_destroy_ah(ah);
		if (!(ah = ibv_create_ah(pd, &av))) { err("create_ah %s", strerror(errno)); return -1; }
		return modify(&a, IBV_QP_STATE, "RTR");
	}
	a.path_mtu = mtu_of(num("mtu", 1024));
	a.dest_qp_num = num("qpn", 0);
	a.rq_psn = num("psn", 0);
	a.ah_attr = av;
	a.max_dest_rd_atomic = num("drd", 16);
	a.min_rnr_timer = num("minrnr", 12);
	return modify(&a, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
		      (qtype == IBV_QPT_RC ? IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER : 0), "RTR");
}
static int c_rts(void)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_RTS, .sq_psn = my_psn };
	a.timeout = num("timeout", 14); a.retry_cnt = num("retry", 7); a.rnr_retry = num("rnr", 7); a.max_rd_atomic = num("rd", 16);
	return modify(&a, IBV_QP_STATE | IBV_QP_SQ_PSN | (qtype == IBV_QPT_RC ? IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC : 0), "RTS");
}
static void c_modify(void)
{
	static const char *n[] = {"reset", "init", "rtr", "rts", "sqd", "sqe", "err"};
	const char *s = arg("state");
	for (int i = 0; s && i < 7; i++) if (!strcmp(s, n[i])) { struct ibv_qp_attr a = { .qp_state = i }; modify(&a, IBV_QP_STATE, n[i]); return; }
	err("state=");
}
static void c_query(void)
{
	struct ibv_qp_attr a; struct ibv_qp_init_attr ia; char b[64];
	int r = ibv_query_qp(qp, &a, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_RQ_PSN | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN, &ia);
	if (r) { err("query %s", strerror(r)); return; }
	say("QUERY state=%d sq_psn=0x%06x rq_psn=0x%06x dest_qpn=0x%06x mtu=%s dgid=%s timeout=%d retry=%d rnr=%d minrnr=%d rd=%d drd=%d", a.qp_state, a.sq_psn, a.rq_psn, a.dest_qp_num,
	    mtu_name(a.path_mtu), gidstr(&a.ah_attr.grh.dgid, b), a.timeout, a.retry_cnt, a.rnr_retry, a.min_rnr_timer, a.max_rd_atomic, a.max_dest_rd_atomic);
}
static int mk_sges(struct ibv_sge *s, uint64_t off, uint64_t len)
{
	int id = num("mr", 0), n = num("sges", 1);
	if (n > 30) n = 30;
	if (id < 0 || id >= NMR || !M[id].mr) { err("mr=%d", id); return -1; }
	uint32_t lk = arg("lkey") ? num("lkey", 0) : M[id].mr->lkey;
	uint64_t done = 0;
	for (int i = 0; i < n; i++) {
		uint64_t l = i == n - 1 ? len - done : len / n;
		s[i].addr = (uintptr_t)M[id].buf + off + done; s[i].length = l; s[i].lkey = lk;
		done += l;
	}
	return n;
}
static void c_post(void)
{
	static const struct { const char *n; int op; } ops[] = {
		{"send", IBV_WR_SEND}, {"sendimm", IBV_WR_SEND_WITH_IMM}, {"sendinv", IBV_WR_SEND_WITH_INV}, {"write", IBV_WR_RDMA_WRITE},
		{"writeimm", IBV_WR_RDMA_WRITE_WITH_IMM}, {"read", IBV_WR_RDMA_READ}, {"cas", IBV_WR_ATOMIC_CMP_AND_SWP}, {"faa", IBV_WR_ATOMIC_FETCH_AND_ADD},
		{"inv", IBV_WR_LOCAL_INV}, {"bind", IBV_WR_BIND_MW}, {"flush", IBV_WR_FLUSH}, {"awrite", IBV_WR_ATOMIC_WRITE} };
	struct ibv_sge sg[32]; struct ibv_send_wr w, *bad;
	const char *o = arg("op"); int op = -1;
	for (unsigned i = 0; o && i < sizeof ops / sizeof *ops; i++) if (!strcmp(o, ops[i].n)) op = ops[i].op;
	if (op < 0) { err("op="); return; }
	unsigned n = num("n", 1); uint64_t len = num("len", (op == IBV_WR_ATOMIC_CMP_AND_SWP || op == IBV_WR_ATOMIC_FETCH_AND_ADD) ? 8 : 0);
	unsigned flags = (num("sig", 1) ? IBV_SEND_SIGNALED : 0) | (num("fence", 0) ? IBV_SEND_FENCE : 0) | (num("sol", 0) ? IBV_SEND_SOLICITED : 0) | (num("inline", 0) ? IBV_SEND_INLINE : 0);
	for (unsigned i = 0; i < n; i++) {
		uint64_t id = arg("id") ? num("id", 0) + i : next_id++;
		int r;
		if (op == IBV_WR_FLUSH || op == IBV_WR_ATOMIC_WRITE) {
			if (!qpx) { err("op=%s needs ex=1", o); return; }
			ibv_wr_start(qpx);
			qpx->wr_id = id; qpx->wr_flags = flags;
			if (op == IBV_WR_FLUSH) ibv_wr_flush(qpx, num("rkey", 0), num("raddr", 0), len, num("ftype", 1), num("level", 0));
			else { uint64_t v = num("val", 0); ibv_wr_atomic_write(qpx, num("rkey", 0), num("raddr", 0), &v); }
			r = ibv_wr_complete(qpx);
		} else {
			int ns = mk_sges(sg, num("off", 0) + i * num("step", 0), len);
			if (ns < 0) return;
			memset(&w, 0, sizeof w);
			w.wr_id = id; w.opcode = op; w.sg_list = sg; w.num_sge = len || num("sges", 0) ? ns : 0; w.send_flags = flags;
			if (op == IBV_WR_BIND_MW) {
				int mw = num("mw", 0), id2 = num("mr", 0); const char *acc = arg("access");
				if (mw < 0 || mw >= NMR || !MW[mw]) { err("mw="); return; }
				w.sg_list = NULL; w.num_sge = 0;
				w.bind_mw.mw = MW[mw]; w.bind_mw.rkey = ibv_inc_rkey(MW[mw]->rkey);
				w.bind_mw.bind_info.mr = M[id2].mr; w.bind_mw.bind_info.addr = (uintptr_t)M[id2].buf + num("off", 0);
				w.bind_mw.bind_info.length = len; w.bind_mw.bind_info.mw_access_flags = access_of(acc ? acc : "rwa");
				r = ibv_post_send(qp, &w, &bad);
				if (!r) { MW[mw]->rkey = w.bind_mw.rkey; say("MW id=%d rkey=0x%08x", mw, MW[mw]->rkey); }
				goto posted;
			}
			if (op == IBV_WR_SEND_WITH_INV || op == IBV_WR_LOCAL_INV) w.invalidate_rkey = num("inv", 0);
			else w.imm_data = htonl(num("imm", 0));
			if (op == IBV_WR_ATOMIC_CMP_AND_SWP || op == IBV_WR_ATOMIC_FETCH_AND_ADD) {
				w.wr.atomic.remote_addr = num("raddr", 0); w.wr.atomic.rkey = num("rkey", 0);
				w.wr.atomic.compare_add = op == IBV_WR_ATOMIC_FETCH_AND_ADD ? num("add", 1) : num("cmp", 0); w.wr.atomic.swap = num("swap", 0);
			} else if (qtype == IBV_QPT_UD) { w.wr.ud.ah = ah; w.wr.ud.remote_qpn = ud_rqpn; w.wr.ud.remote_qkey = ud_qkey; }
			else { w.wr.rdma.remote_addr = num("raddr", 0) + i * num("rstep", 0); w.wr.rdma.rkey = num("rkey", 0); }
			r = ibv_post_send(qp, &w, &bad);
		}
posted:
		if (r) { err("post %s: %s", o, strerror(r)); return; }
		say("POSTED op=%s id=%" PRIu64 " len=%" PRIu64, o, id, len);
	}
}
static void c_recv(void)
{
	struct ibv_sge sg[32]; struct ibv_recv_wr w, *bad;
	unsigned n = num("n", 1); uint64_t len = num("len", 0);
	for (unsigned i = 0; i < n; i++) {
		int ns = mk_sges(sg, num("off", 0) + i * num("step", 0), len);
		if (ns < 0) return;
		memset(&w, 0, sizeof w);
		w.wr_id = arg("id") ? num("id", 0) + i : next_id++; w.sg_list = sg; w.num_sge = len ? ns : 0;
		int r = ibv_post_recv(qp, &w, &bad);
		if (r) { err("recv: %s", strerror(r)); return; }
		say("POSTED op=recv id=%" PRIu64 " len=%" PRIu64, (uint64_t)w.wr_id, len);
	}
}
static const char *wcop(int o)
{
	switch (o) {
	case IBV_WC_SEND: return "send"; case IBV_WC_RDMA_WRITE: return "write"; case IBV_WC_RDMA_READ: return "read"; case IBV_WC_COMP_SWAP: return "cas";
	case IBV_WC_FETCH_ADD: return "faa"; case IBV_WC_LOCAL_INV: return "inv"; case IBV_WC_RECV: return "recv"; case IBV_WC_RECV_RDMA_WITH_IMM: return "recv_write_imm";
	case IBV_WC_BIND_MW: return "bind"; case IBV_WC_FLUSH: return "flush"; case IBV_WC_ATOMIC_WRITE: return "awrite"; default: return "?"; }
}
static void c_wait(int must)
{
	unsigned n = num("n", must ? 1 : 1u << 30), got = 0; uint64_t end = now_ms() + num("ms", must ? 5000 : 500), t0 = now_ms();
	struct ibv_wc wc;
	while (got < n) {
		int r = ibv_poll_cq(cq, 1, &wc);
		if (r < 0) { err("poll_cq"); return; }
		if (r == 0) {
			if (ibv_req_notify_cq(cq, 0)) { err("notify"); return; }
			r = ibv_poll_cq(cq, 1, &wc);
			if (r == 0) {
				uint64_t t = now_ms();
				if (t >= end) break;
				struct pollfd p = { .fd = chan->fd, .events = POLLIN };
				if (poll(&p, 1, end - t) > 0) { struct ibv_cq *c; void *x; if (!ibv_get_cq_event(chan, &c, &x)) ibv_ack_cq_events(c, 1); }
				continue;
			}
		}
		got++;
		char imm[64] = "";
		if (wc.status == IBV_WC_SUCCESS && (wc.wc_flags & IBV_WC_WITH_IMM)) snprintf(imm, sizeof imm, " imm=0x%08x", ntohl(wc.imm_data));
		/* rxe hands out the kernel's flag, whose number is that of IBV_WC_IP_CSUM_OK here */
		if (wc.status == IBV_WC_SUCCESS && (wc.wc_flags & (IBV_WC_WITH_INV | IBV_WC_IP_CSUM_OK))) snprintf(imm, sizeof imm, " inv=0x%08x", wc.invalidated_rkey);
		if (wc.status == IBV_WC_SUCCESS) say("WC id=%" PRIu64 " status=0 (success) op=%s len=%u%s src_qp=0x%06x flags=%u", wc.wr_id, wcop(wc.opcode), wc.byte_len, imm, wc.src_qp, wc.wc_flags);
		else say("WC id=%" PRIu64 " status=%d (%s) vendor=0x%x", wc.wr_id, wc.status, ibv_wc_status_str(wc.status), wc.vendor_err);
	}
	if (must && got < n) err("wait: %u of %u completions in %" PRIu64 " ms", got, n, now_ms() - t0);
	else say("WAITED got=%u ms=%" PRIu64, got, now_ms() - t0);
}
static uint8_t pat(uint64_t seed, uint64_t i) { return (seed + 7 * i + 13 * (i >> 8)) & 255; }
static uint8_t *span(uint64_t *len)
{
	int id = num("mr", 0); uint64_t off = num("off", 0); *len = num("len", 0);
	if (id < 0 || id >= NMR || !M[id].mr || off > M[id].len || *len > M[id].len - off) { err("range"); return NULL; }
	return (uint8_t *)M[id].buf + off;
}
static void c_mem(const char *c)
{
	uint64_t len, seed = num("seed", 0); uint8_t *p = span(&len);
	if (!p) return;
	if (!strcmp(c, "fill")) { for (uint64_t i = 0; i < len; i++) p[i] = pat(seed, i); say("FILLED"); }
	else if (!strcmp(c, "check")) {
		for (uint64_t i = 0; i < len; i++) if (p[i] != pat(seed, i)) { err("CHECK bad at=%" PRIu64 " got=%02x want=%02x", i, p[i], pat(seed, i)); return; }
		say("CHECK ok len=%" PRIu64, len);
	} else if (!strcmp(c, "dump")) { fputs("DUMP ", out); for (uint64_t i = 0; i < len; i++) fprintf(out, "%02x", p[i]); fputc('\n', out); }
	else if (!strcmp(c, "poke")) {
		const char *h = arg("hex"); int id = num("mr", 0); uint64_t room = M[id].len - num("off", 0), i = 0; unsigned v;
		for (; h && h[0] && h[1] && i < room && sscanf(h, "%2x", &v) == 1; h += 2) p[i++] = v;
		say("POKED %" PRIu64, i);
	}
}
static void c_async(void)
{
	uint64_t end = now_ms() + num("ms", 0);
	for (;;) {
		struct pollfd p = { .fd = ctx->async_fd, .events = POLLIN };
		uint64_t t = now_ms();
		if (poll(&p, 1, t < end ? (int)(end - t) : 0) <= 0) return;
		struct ibv_async_event e;
		if (ibv_get_async_event(ctx, &e)) { err("async %s", strerror(errno)); return; }
		say("ASYNC %d (%s)", e.event_type, ibv_event_type_str(e.event_type));
		ibv_ack_async_event(&e);
	}
}
static void c_counters(void)
{
	char d[256], f[600], v[64]; snprintf(d, sizeof d, "/sys/class/infiniband/%s/ports/1/hw_counters", devname);
	DIR *D = opendir(d); struct dirent *e;
	fputs("COUNTERS", out);
	while (D && (e = readdir(D))) {
		if (e->d_name[0] == '.') continue;
		snprintf(f, sizeof f, "%s/%s", d, e->d_name);
		FILE *F = fopen(f, "r");
		if (F && fgets(v, sizeof v, F)) { v[strcspn(v, "\n")] = 0; if (strcmp(v, "0")) fprintf(out, " %s=%s", e->d_name, v); }
		if (F) fclose(F);
	}
	if (D) closedir(D);
	fputc('\n', out);
}
static int quit;
static void command(char *s)
{
	if (!split(s)) return;
	const char *c = AV[0];
	if (!strcmp(c, "info")) c_info();
	else if (!strcmp(c, "connect")) { if (!c_init() && !c_rtr()) c_rts(); }
	else if (!strcmp(c, "init")) c_init();
	else if (!strcmp(c, "rtr")) c_rtr();
	else if (!strcmp(c, "rts")) c_rts();
	else if (!strcmp(c, "modify")) c_modify();
	else if (!strcmp(c, "query")) c_query();
	else if (!strcmp(c, "post")) c_post();
	else if (!strcmp(c, "recv")) c_recv();
	else if (!strcmp(c, "wait")) c_wait(1);
	else if (!strcmp(c, "expect")) c_wait(0);
	else if (!strcmp(c, "fill") || !strcmp(c, "check") || !strcmp(c, "dump") || !strcmp(c, "poke")) c_mem(c);
	else if (!strcmp(c, "async")) c_async();
	else if (!strcmp(c, "counters")) c_counters();
	else if (!strcmp(c, "sleep")) usleep(num("ms", 0) * 1000);
	else if (!strcmp(c, "mr")) { int id = num("id", 1); const char *a = arg("access"); if (!mk_mr(id, num("len", 4096), a ? a : "lrwa", num("odp", 0)))
		say("MR id=%d addr=0x%" PRIx64 " len=%zu lkey=0x%08x rkey=0x%08x", id, (uint64_t)(uintptr_t)M[id].buf, M[id].len, M[id].mr->lkey, M[id].mr->rkey); }
	else if (!strcmp(c, "dereg")) { int id = num("id", 1); if (id < 0 || id >= NMR || !M[id].mr) err("id"); else { int r = ibv_dereg_mr(M[id].mr); if (r) err("dereg %s", strerror(r)); else { munmap(M[id].buf, M[id].len); M[id].mr = NULL; say("DEREG %d", id); } } }
	else if (!strcmp(c, "advise")) { uint64_t len; uint8_t *p = span(&len); if (p) { struct ibv_sge s = { (uintptr_t)p, len, M[num("mr", 0)].mr->lkey };
		int r = ibv_advise_mr(pd, num("write", 1) ? IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE : IBV_ADVISE_MR_ADVICE_PREFETCH, IBV_ADVISE_MR_FLAG_FLUSH, &s, 1); if (r) err("advise %s", strerror(r)); else say("ADVISED"); } }
	else if (!strcmp(c, "mw")) { int id = num("id", 0); if (id < 0 || id >= NMR || MW[id] || !(MW[id] = ibv_alloc_mw(pd, num("type", 2)))) err("mw: %s", strerror(errno)); else say("MW id=%d rkey=0x%08x", id, MW[id]->rkey); }
	else if (!strcmp(c, "quit")) quit = 1;
	else err("unknown command %s", c);
}
static void commands(char *all)
{
	char *save, *copy = strdup(all);
	for (char *l = strtok_r(copy, ";\n", &save); l && !quit; l = strtok_r(NULL, ";\n", &save)) { command(l); fflush(out); }
	free(copy);
}
static int open_all(void)
{
	int n; struct ibv_device **l = ibv_get_device_list(&n);
	if (arg("dev")) snprintf(devname, sizeof devname, "%s", arg("dev"));
	for (int i = 0; l && i < n; i++) if (!strcmp(ibv_get_device_name(l[i]), devname)) ctx = ibv_open_device(l[i]);
	if (!ctx) { err("no device %s", devname); return -1; }
	gidx = num("gid", 1);
	const char *t = arg("type");
	if (t && !strcmp(t, "uc")) qtype = IBV_QPT_UC;
	if (t && !strcmp(t, "ud")) qtype = IBV_QPT_UD;
	my_psn = num("psn", 0) & 0xffffff;
	fcntl(ctx->async_fd, F_SETFL, fcntl(ctx->async_fd, F_GETFL) | O_NONBLOCK);
	if (!(pd = ibv_alloc_pd(ctx)) || !(chan = ibv_create_comp_channel(ctx)) || !(cq = ibv_create_cq(ctx, num("cq", 1024), NULL, chan, 0))) { err("pd/cq %s", strerror(errno)); return -1; }
	fcntl(chan->fd, F_SETFL, fcntl(chan->fd, F_GETFL) | O_NONBLOCK);
	struct ibv_qp_cap cap = { .max_send_wr = num("sq", 256), .max_recv_wr = num("rq", 256), .max_send_sge = num("sge", 16), .max_recv_sge = num("sge", 16), .max_inline_data = num("inline", 64) };
	if (num("ex", 1) && qtype == IBV_QPT_RC) {
		struct ibv_qp_init_attr_ex x = { .send_cq = cq, .recv_cq = cq, .cap = cap, .qp_type = qtype, .sq_sig_all = num("sigall", 0), .pd = pd,
			.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
			.send_ops_flags = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_FLUSH | IBV_QP_EX_WITH_ATOMIC_WRITE };
		if ((qp = ibv_create_qp_ex(ctx, &x))) qpx = ibv_qp_to_qp_ex(qp);
	}
	if (!qp) {
		struct ibv_qp_init_attr ia = { .send_cq = cq, .recv_cq = cq, .cap = cap, .qp_type = qtype, .sq_sig_all = num("sigall", 0) };
		qp = ibv_create_qp(pd, &ia);
	}
	if (!qp) { err("create_qp %s", strerror(errno)); return -1; }
	const char *a = arg("access");
	return mk_mr(0, num("len", 1 << 20), a ? a : "lrwa", num("odp", 0));
}
static int un(const char *p, struct sockaddr_un *a) { memset(a, 0, sizeof *a); a->sun_family = AF_UNIX; strncpy(a->sun_path, p, sizeof a->sun_path - 1); return socket(AF_UNIX, SOCK_STREAM, 0); }
static char *slurp(int fd) { size_t n = 0, c = 1 << 16; char *b = malloc(c); ssize_t r; while ((r = read(fd, b + n, c - n - 1)) > 0) { n += r; if (n + 1 >= c) b = realloc(b, c *= 2); } b[n] = 0; return b; }

int main(int ac, char **av)
{
	out = stdout;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (ac >= 4 && !strcmp(av[1], "do")) {
		struct sockaddr_un a; int s = un(av[2], &a), bad = 0;
		for (int i = 0; connect(s, (void *)&a, sizeof a); i++) { if (i > 100) { perror(av[2]); return 2; } usleep(50000); }
		if (write(s, av[3], strlen(av[3])) < 0) return 2;
		shutdown(s, SHUT_WR);
		char *b = slurp(s); fputs(b, stdout);
		for (char *p = b; p; p = strchr(p, '\n'), p = p ? p + 1 : p) if (!strncmp(p, "ERR", 3)) bad = 1;
		return bad;
	}
	if (ac >= 3 && (!strcmp(av[1], "serve") || !strcmp(av[1], "run"))) {
		int serve = !strcmp(av[1], "serve");
		AC = 0; for (int i = serve ? 3 : 2; i < ac - (serve ? 0 : 1) && AC < 64; i++) AV[AC++] = av[i];
		if (open_all()) return 1;
		c_info();
		if (!serve) { commands(av[ac - 1]); return failed; }
		struct sockaddr_un a; int s = un(av[2], &a);
		unlink(av[2]);
		if (bind(s, (void *)&a, sizeof a) || listen(s, 8)) { perror("bind"); return 1; }
		while (!quit) {
			int c = accept(s, NULL, NULL);
			if (c < 0) continue;
			char *b = slurp(c);
			out = fdopen(c, "w"); failed = 0;
			commands(b);
			fclose(out); out = stdout; free(b);
		}
		return 0;
	}
	fprintf(stderr, "usage: rcpeer serve SOCK [opts] | do SOCK 'cmds' | run [opts] 'cmds'\n");
	return 2;
}
