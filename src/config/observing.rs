//! `[log]` and `[metrics]`: how the server can be observed.

use std::net::SocketAddr;

use serde::Deserialize;

use super::Error;
use super::check::Check;
use crate::logging::Format;

/// `[log]`, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// `format`: how lines of the log are written. Default `text`.
    pub format: Format,
}

/// `[metrics]`, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// `listen`: an address of the machine on which metrics are served over HTTP; `None`: they are not.
    pub listen: Option<SocketAddr>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenLog {
    format: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenMetrics {
    listen: Option<String>,
}

impl Check<'_> {
    pub(super) fn log(&self, written: &WrittenLog) -> Result<Log, Error> {
        let format = match written.format.as_deref() {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => {
                let problem = format!("there is no format {other:?}");
                return self.fail("log.format", problem, "use \"text\" or \"json\"");
            }
        };
        Ok(Log { format })
    }

    pub(super) fn metrics(&self, written: &WrittenMetrics) -> Result<Metrics, Error> {
        let Some(listen) = &written.listen else {
            return Ok(Metrics::default());
        };
        match listen.parse() {
            Ok(listen) => Ok(Metrics {
                listen: Some(listen),
            }),
            Err(_) => self.fail(
                "metrics.listen",
                format!("{listen:?} is not an address with a port"),
                "write an address of this machine, as \"127.0.0.1:9445\" or \"[::1]:9445\"",
            ),
        }
    }
}
