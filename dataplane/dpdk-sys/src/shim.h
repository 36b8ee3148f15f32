/* What the dataplane asks of libdpdk: its inline functions as real ones, and
 * calls whose structures are better filled in C. Errors are negative errno. */
#ifndef HOMEPORT_DPDK_SHIM_H
#define HOMEPORT_DPDK_SHIM_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>

/* Bytes in front of a received frame. */
enum { HP_HEADROOM = RTE_PKTMBUF_HEADROOM };

/* A VLAN tag was taken off the frame and is in vlan_tci. */
static const uint64_t HP_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;

struct hp_stats {
	uint64_t rx_missed;
	uint64_t rx_errors;
	uint64_t rx_no_mbuf;
	uint64_t tx_errors;
};

int hp_eal_init(int argc, char **argv);
/* Where this process would put files to share. */
const char *hp_runtime_dir(void);
/* The thread's lcore number and mempool cache. Zero when it has them now. */
int hp_thread_register(void);
void hp_thread_unregister(void);
const char *hp_strerror(int error);

/* The pool of this name, made if there is none; NULL and *error set when it
 * cannot be made. */
struct rte_mempool *hp_pool(const char *name, uint32_t mbufs, uint16_t room, int *error);
uint32_t hp_pool_available(const struct rte_mempool *pool);
struct rte_mbuf *hp_mbuf_alloc(struct rte_mempool *pool);
void hp_mbuf_free(struct rte_mbuf *mbuf);
int hp_mbuf_linearize(struct rte_mbuf *mbuf);

/* A port's number, or an error. */
int hp_vdev_open(const char *name, const char *arguments);
int hp_device_open(const char *name, const char *arguments);
void hp_vdev_close(const char *name);

int hp_port_start(uint16_t port, struct rte_mempool *pool, uint16_t mtu);
void hp_port_close(uint16_t port);
int hp_port_mac(uint16_t port, uint8_t mac[6]);
int hp_port_mtu(uint16_t port);
int hp_port_promiscuous(uint16_t port, bool on);
bool hp_port_link_up(uint16_t port);
int hp_port_stats(uint16_t port, struct hp_stats *stats);
uint16_t hp_rx_burst(uint16_t port, struct rte_mbuf **mbufs, uint16_t count);
uint16_t hp_tx_burst(uint16_t port, struct rte_mbuf **mbufs, uint16_t count);

#endif
