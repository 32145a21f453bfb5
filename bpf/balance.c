#include <uapi/linux/bpf.h>
#include "maps.h"
int xdp_balance(struct xdp_md *ctx){ struct service_key k = {}; return service_map.lookup(&k) ? XDP_DROP : XDP_PASS; }
