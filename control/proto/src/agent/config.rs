//! A new configuration for all agents of the process.

use super::Agent;
use crate::Now;
use crate::advertiser::Advertiser;
use crate::config::AgentConfig;
use crate::foreign_agent::ForeignAgent;
use crate::home_agent::HomeAgent;

impl Agent {
    /// Takes a new configuration. Bindings and visitors that it still allows
    /// stay; the others are removed, with actions.
    pub fn handle_config(&mut self, config: AgentConfig, now: Now) {
        let AgentConfig { home_agents, foreign_agents, advertisers } = config;
        self.shared.local = home_agents
            .iter()
            .map(|one| one.address)
            .chain(foreign_agents.iter().map(|one| one.care_of_address))
            .chain(foreign_agents.iter().flat_map(|one| one.links.iter().map(|link| link.1)))
            .chain(advertisers.iter().map(|one| one.address))
            .filter(|address| !address.is_unspecified())
            .collect();
        let mut before = core::mem::take(&mut self.home_agents);
        for config in home_agents {
            let key = (config.tenant, config.address);
            let agent = match before.remove(&key) {
                Some(mut agent) => {
                    agent.reconfigure(config, &mut self.shared.context(key.0, now));
                    agent
                }
                None => HomeAgent::new(config, now.ntp),
            };
            self.home_agents.insert(key, agent);
        }
        for (key, mut agent) in before {
            agent.close(&mut self.shared.context(key.0, now));
        }
        let mut before = core::mem::take(&mut self.foreign_agents);
        for config in foreign_agents {
            let key = (config.tenant, config.care_of_address);
            let agent = match before.remove(&key) {
                Some(mut agent) => {
                    agent.reconfigure(config, &mut self.shared.context(key.0, now));
                    agent
                }
                None => ForeignAgent::new(config),
            };
            self.foreign_agents.insert(key, agent);
        }
        for (key, mut agent) in before {
            agent.close(&mut self.shared.context(key.0, now));
        }
        let mut before = core::mem::take(&mut self.advertisers);
        for config in advertisers {
            let key = (config.tenant, config.port);
            let mut context = self.shared.context(key.0, now);
            let advertiser = match before.remove(&key) {
                Some(advertiser) if *advertiser.config() == config => advertiser,
                Some(mut advertiser) => {
                    advertiser.reconfigure(config, &mut context);
                    advertiser
                }
                None => {
                    let advertiser = Advertiser::new(config, now.monotonic);
                    advertiser.start(&mut context);
                    advertiser
                }
            };
            self.advertisers.insert(key, advertiser);
        }
        for (key, advertiser) in before {
            advertiser.stop(&mut self.shared.context(key.0, now));
        }
        self.inform(now);
    }
}
