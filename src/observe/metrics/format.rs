//! In which of its three forms a page goes out: the Accept header decides. Prometheus asks for OpenMetrics, or for protobuf
//! where it keeps native histograms; people and `promtool check metrics` get Prometheus' own text.

use std::fmt::Write;

/// A form of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4: for whoever doesn't ask for another.
    Text,
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
    /// Messages of io.prometheus.client, the only form that has native histograms.
    Protobuf,
}

impl Format {
    /// The form that an Accept header prefers; of equals the first.
    pub fn wanted(accept: &str) -> Self {
        let mut best = (Self::Text, 0.0);
        for entry in accept.split(',') {
            let mut parts = entry.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameter = |name: &str| {
                let found = parts.clone().filter_map(|part| part.split_once('='));
                let mut found = found.filter(|(own, _)| own.trim().eq_ignore_ascii_case(name));
                found.next().map(|(_, value)| value.trim())
            };
            let is = |name, value| parameter(name).is_some_and(|own: &str| own == value);
            let format = match media_type.as_str() {
                "application/vnd.google.protobuf"
                    if is("proto", "io.prometheus.client.MetricFamily")
                        && is("encoding", "delimited") =>
                {
                    Self::Protobuf
                }
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Text,
                _ => continue,
            };
            let quality = parameter("q").and_then(|q| q.parse().ok()).unwrap_or(1.0);
            if quality > best.1 {
                best = (format, quality);
            }
        }
        best.0
    }

    /// Its content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// OpenMetrics text as Prometheus' own: there a counter and an info are named as their series are.
pub(super) fn plain(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len() + 1024);
    let mut meaning = "";
    for line in openmetrics.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            meaning = help.split_once(' ').map_or("", |(_, meaning)| meaning);
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of.split_once(' ').unwrap_or((of, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            writeln!(
                text,
                "# HELP {name}{suffix} {meaning}\n# TYPE {name}{suffix} {kind}"
            )
            .expect("a string can be written to");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_asker_gets_the_form_that_he_prefers() {
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let others = "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, wanted) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html, application/json", Format::Text),
            ("text/plain", Format::Text),
            (others, Format::OpenMetrics),
            (&format!("{protobuf},{others}"), Format::Protobuf),
            (&format!("{others},{protobuf};q=0.2"), Format::OpenMetrics),
            (&format!("{protobuf};q=0, text/plain"), Format::Text),
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=text",
                Format::Text,
            ),
        ] {
            assert_eq!(Format::wanted(accept), wanted, "{accept}");
        }
    }

    #[test]
    fn plain_text_names_counters_and_infos_as_their_series() {
        let openmetrics = "# HELP a Some.\n# TYPE a counter\na_total{x=\"y\"} 1\n# HELP b The build.\n# TYPE b info\n\
                           b_info{v=\"1\"} 1\n# HELP c Now.\n# TYPE c gauge\nc 2\n# EOF\n";
        assert_eq!(
            plain(openmetrics),
            "# HELP a_total Some.\n# TYPE a_total counter\na_total{x=\"y\"} 1\n# HELP b_info The build.\n\
             # TYPE b_info gauge\nb_info{v=\"1\"} 1\n# HELP c Now.\n# TYPE c gauge\nc 2\n"
        );
    }
}
