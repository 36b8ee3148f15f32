#include "shim.h"

#include <errno.h>
#include <string.h>

#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mempool.h>

/* Descriptors of each queue, unless the driver wants other numbers. */
enum { DESCRIPTORS = 1024 };

/* Mbufs that a thread keeps for itself. */
enum { CACHE = 256 };

/* rte_errno is positive, and zero where a function forgot to set it. */
static int last_error(void)
{
	return rte_errno > 0 ? -rte_errno : -EIO;
}

int hp_eal_init(int argc, char **argv)
{
	return rte_eal_init(argc, argv) < 0 ? last_error() : 0;
}

const char *hp_runtime_dir(void)
{
	return rte_eal_get_runtime_dir();
}

int hp_thread_register(void)
{
	if (rte_lcore_id() != LCORE_ID_ANY)
		return 0;
	return rte_thread_register() < 0 ? last_error() : 0;
}

void hp_thread_unregister(void)
{
	rte_thread_unregister();
}

const char *hp_strerror(int error)
{
	return rte_strerror(error);
}

struct rte_mempool *hp_pool(const char *name, uint32_t mbufs, uint16_t room, int *error)
{
	struct rte_mempool *pool = rte_mempool_lookup(name);

	if (pool == NULL) {
		/* A pool must be half again as large as the cache. */
		unsigned int cache = mbufs >= 2 * CACHE ? CACHE : 0;

		pool = rte_pktmbuf_pool_create(name, mbufs, cache, 0, room, SOCKET_ID_ANY);
	}
	if (pool == NULL)
		*error = last_error();
	return pool;
}

uint32_t hp_pool_available(const struct rte_mempool *pool)
{
	return rte_mempool_avail_count(pool);
}

struct rte_mbuf *hp_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void hp_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

int hp_mbuf_linearize(struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_linearize(mbuf);
}

static int port_by_name(const char *name)
{
	uint16_t port;
	int error = rte_eth_dev_get_port_by_name(name, &port);

	return error < 0 ? error : port;
}

int hp_vdev_open(const char *name, const char *arguments)
{
	int error = rte_vdev_init(name, arguments);

	return error < 0 ? error : port_by_name(name);
}

int hp_device_open(const char *name, const char *arguments)
{
	int port = port_by_name(name);

	if (port < 0) {
		int error = rte_dev_probe(arguments);

		port = error < 0 ? error : port_by_name(name);
	}
	return port;
}

void hp_vdev_close(const char *name)
{
	rte_vdev_uninit(name);
}

int hp_port_start(uint16_t port, struct rte_mempool *pool, uint16_t mtu)
{
	struct rte_eth_conf config;
	struct rte_eth_dev_info info;
	uint16_t rx = DESCRIPTORS, tx = DESCRIPTORS;
	int error;

	memset(&config, 0, sizeof(config));
	error = rte_eth_dev_info_get(port, &info);
	if (error < 0)
		return error;
	/* Virtual devices have no limit that they enforce, and some name one
	 * that they do not have. */
	config.rxmode.mtu = RTE_MIN(mtu, info.max_mtu);
	error = rte_eth_dev_configure(port, 1, 1, &config);
	if (error < 0)
		return error;
	error = rte_eth_dev_adjust_nb_rx_tx_desc(port, &rx, &tx);
	if (error < 0)
		return error;
	error = rte_eth_rx_queue_setup(port, 0, rx, rte_eth_dev_socket_id(port), NULL, pool);
	if (error < 0)
		return error;
	error = rte_eth_tx_queue_setup(port, 0, tx, rte_eth_dev_socket_id(port), NULL);
	if (error < 0)
		return error;
	return rte_eth_dev_start(port);
}

void hp_port_close(uint16_t port)
{
	rte_eth_dev_stop(port);
	rte_eth_dev_close(port);
}

int hp_port_mac(uint16_t port, uint8_t mac[6])
{
	struct rte_ether_addr address;
	int error = rte_eth_macaddr_get(port, &address);

	if (error == 0)
		memcpy(mac, address.addr_bytes, sizeof(address.addr_bytes));
	return error;
}

int hp_port_mtu(uint16_t port)
{
	uint16_t mtu;
	int error = rte_eth_dev_get_mtu(port, &mtu);

	return error < 0 ? error : mtu;
}

int hp_port_promiscuous(uint16_t port, bool on)
{
	return on ? rte_eth_promiscuous_enable(port) : rte_eth_promiscuous_disable(port);
}

bool hp_port_link_up(uint16_t port)
{
	struct rte_eth_link link;

	memset(&link, 0, sizeof(link));
	return rte_eth_link_get_nowait(port, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

int hp_port_stats(uint16_t port, struct hp_stats *stats)
{
	struct rte_eth_stats all;
	int error = rte_eth_stats_get(port, &all);

	if (error == 0) {
		stats->rx_missed = all.imissed;
		stats->rx_errors = all.ierrors;
		stats->rx_no_mbuf = all.rx_nombuf;
		stats->tx_errors = all.oerrors;
	}
	return error;
}

uint16_t hp_rx_burst(uint16_t port, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_rx_burst(port, 0, mbufs, count);
}

uint16_t hp_tx_burst(uint16_t port, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, 0, mbufs, count);
}
