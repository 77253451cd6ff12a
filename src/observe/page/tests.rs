//! The document and the page over HTTP.
