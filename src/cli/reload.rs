//! SIGHUP: the configuration is read again, and the secrets of the pages are taken from it.
//!
//! Everything else stays until a restart. A configuration that cannot be used changes nothing.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::{Failure, Globals};
use crate::config::{Config, ConfigError, Overrides};
use crate::service::Service;

/// SIGHUP, and the flags to read the configuration with.
pub(super) struct Reload {
    hangup: Signal,
    overrides: Overrides,
}

impl Reload {
    /// From here on SIGHUP does not end the process. What comes before [`Self::asked`] is kept.
    pub(super) fn listen(globals: &Globals) -> Result<Self, Failure> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            overrides: globals.overrides(),
        })
    }

    /// The next SIGHUP.
    pub(super) async fn asked(&mut self) {
        self.hangup.recv().await;
    }

    /// Reads the configuration again; `running` is the one that the service was started with.
    pub(super) async fn reload(&self, running: &Config, service: &Service) {
        let overrides = self.overrides.clone();
        let read = move || -> Result<Config, ConfigError> {
            let config = Config::load(&overrides, std::env::vars_os())?;
            config.require_secrets()?;
            Ok(config)
        };
        let error = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(config)) => return apply(config, running, service).await,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        error!(
            error,
            "configuration cannot be read again, everything stays as it is"
        );
    }
}

async fn apply(config: Config, running: &Config, service: &Service) {
    for warning in config.warnings() {
        warn!(warning, "configuration");
    }
    let differs = config.differs_beside_secrets(running);
    service.reload(config).await;
    info!("configuration read again, secrets of the pages are taken from it");
    if differs {
        warn!("restart to apply other changes of the configuration");
    }
}
