//! Where spans go and which are recorded: the configuration, and the environment variables that all programs with OpenTelemetry
//! know. As everywhere, environment beats file.

use crate::config::checked::Telemetry;
use std::time::Duration;

/// What an export may take, tries again included, unless the environment says otherwise: OpenTelemetry's own default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where spans are taken below an address.
const PATH: &str = "/v1/traces";

/// How spans are recorded and sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    /// The whole URL.
    pub endpoint: String,
    /// What an export may take.
    pub timeout: Duration,
    /// The share of batches and requests that is recorded.
    pub ratio: f64,
    /// Whether what carries a sampled `traceparent` is recorded, whatever the ratio.
    pub follows_parent: bool,
    /// The service's name, where the environment gives one.
    pub service: Option<String>,
}

impl Settings {
    /// `None`: no spans. `Err`: what is wrong with a variable.
    pub(super) fn of(
        telemetry: &Telemetry,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        let given = |name: &str| environment(name).filter(|value| !value.is_empty());
        let says = |name: &str, word: &str| {
            given(name).is_some_and(|value| value.eq_ignore_ascii_case(word))
        };
        if says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let base = given("OTEL_EXPORTER_OTLP_ENDPOINT").or_else(|| telemetry.otlp_endpoint.clone());
        let whole = given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let Some(endpoint) = whole.or_else(|| base.map(|base| below(&base))) else {
            return Ok(None);
        };
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(format!(
                "OTEL_EXPORTER_OTLP_ENDPOINT: {endpoint:?} is no URL that begins with http:// or https://; spans go over \
                 OTLP/HTTP, mostly at port 4318"
            ));
        }
        let (ratio, follows_parent) = sampling(
            telemetry.sample_ratio,
            given("OTEL_TRACES_SAMPLER"),
            given("OTEL_TRACES_SAMPLER_ARG"),
        )?;
        if ratio <= 0.0 && !follows_parent {
            return Ok(None);
        }
        let timeout = given("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
            .or_else(|| given("OTEL_EXPORTER_OTLP_TIMEOUT"));
        let timeout = timeout.map(|text| {
            let milliseconds = text.parse().ok().filter(|count| *count > 0);
            milliseconds.map(Duration::from_millis).ok_or_else(|| {
                format!("OTEL_EXPORTER_OTLP_TIMEOUT: {text:?} is no number of milliseconds above 0")
            })
        });
        Ok(Some(Self {
            endpoint,
            timeout: timeout.transpose()?.unwrap_or(TIMEOUT),
            ratio,
            follows_parent,
            service: given("OTEL_SERVICE_NAME"),
        }))
    }
}

fn below(base: &str) -> String {
    let base = base.trim_end_matches('/');
    match base.ends_with(PATH) {
        true => base.to_owned(),
        false => format!("{base}{PATH}"),
    }
}

fn sampling(
    configured: f64,
    sampler: Option<String>,
    argument: Option<String>,
) -> Result<(f64, bool), String> {
    let Some(sampler) = sampler else {
        return Ok((configured, true));
    };
    let ratio = || match argument.as_deref() {
        None => Ok(configured),
        Some(text) => text
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .ok_or_else(|| format!("OTEL_TRACES_SAMPLER_ARG: {text:?} is no number from 0 to 1")),
    };
    Ok(match sampler.as_str() {
        "always_on" => (1.0, false),
        "always_off" => (0.0, false),
        "traceidratio" => (ratio()?, false),
        "parentbased_always_on" => (1.0, true),
        "parentbased_always_off" => (0.0, true),
        "parentbased_traceidratio" => (ratio()?, true),
        other => {
            return Err(format!(
                "OTEL_TRACES_SAMPLER: {other:?} is none of always_on always_off traceidratio parentbased_always_on \
                 parentbased_always_off parentbased_traceidratio"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::checked::LogForm;

    fn settings(
        endpoint: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Result<Option<Settings>, String> {
        let telemetry = Telemetry {
            log: LogForm::Json,
            level: String::new(),
            applied_sample: 1000,
            otlp_endpoint: endpoint.map(str::to_owned),
            sample_ratio: 0.25,
        };
        Settings::of(&telemetry, |name| {
            let found = environment.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn spans_go_where_the_nearest_source_says_and_else_nowhere() {
        assert_eq!(settings(None, &[]), Ok(None));
        let endpoint = |file, environment: &[_]| {
            let settings = settings(file, environment).unwrap();
            settings.map(|settings| settings.endpoint)
        };
        let shown = |text: &str| Some(text.to_owned());
        let file = Some("http://file:4318/");
        assert_eq!(endpoint(file, &[]), shown("http://file:4318/v1/traces"));
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://base");
        assert_eq!(endpoint(file, &[base]), shown("https://base/v1/traces"));
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://whole/x");
        assert_eq!(endpoint(None, &[base, whole]), shown("http://whole/x"));
        let disabled = ("OTEL_SDK_DISABLED", "True");
        assert_eq!(endpoint(file, &[disabled]), None);
        assert_eq!(endpoint(file, &[("OTEL_TRACES_EXPORTER", "none")]), None);
        let wrong = [("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")];
        assert!(settings(None, &wrong).unwrap_err().contains("4318"));
    }

    #[test]
    fn the_samplers_of_the_specification_are_known() {
        let sampling = |sampler: &str, argument: &str| {
            let environment = [
                ("OTEL_TRACES_SAMPLER", sampler),
                ("OTEL_TRACES_SAMPLER_ARG", argument),
            ];
            let settings = settings(Some("http://here"), &environment)?;
            Ok(settings.map(|settings| (settings.ratio, settings.follows_parent)))
        };
        let is: fn(f64, bool) -> Result<_, String> = |ratio, follows| Ok(Some((ratio, follows)));
        assert_eq!(sampling("", ""), is(0.25, true));
        assert_eq!(sampling("always_on", ""), is(1.0, false));
        assert_eq!(sampling("always_off", ""), Ok(None));
        assert_eq!(sampling("traceidratio", "0.5"), is(0.5, false));
        assert_eq!(sampling("parentbased_always_off", ""), is(0.0, true));
        assert_eq!(sampling("parentbased_traceidratio", ""), is(0.25, true));
        assert!(sampling("parentbased_traceidratio", "2").is_err());
        assert!(sampling("sometimes", "").is_err());
    }
}
