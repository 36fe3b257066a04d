//! Which path leads where.

use super::metrics::Metrics;
use super::problem::Problem;
use super::{Context, auth, handlers, host, openapi};
use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

/// A path and the methods that it takes.
pub type Route = (&'static str, &'static [&'static str]);

/// All routes, as the API's description lists them.
pub const ROUTES: [Route; 16] = [
    ("/v1/networks", &["get"]),
    ("/v1/networks/{network}", &["get", "put", "delete"]),
    ("/v1/networks/{network}/attachments", &["get"]),
    ("/v1/networks/{network}/attachments/{attachment}", &["get", "put", "delete"]),
    ("/v1/networks/{network}/services", &["get"]),
    ("/v1/networks/{network}/services/{service}", &["get", "put", "delete"]),
    ("/v1/networks/{network}/services/{service}/backends/{ip}", &["get", "put", "delete"]),
    ("/v1/networks/{network}/services/{service}/backends/{ip}/drain", &["post"]),
    ("/v1/apply", &["post"]),
    ("/v1/upgrade", &["post"]),
    ("/v1/export", &["get"]),
    ("/v1/status", &["get"]),
    ("/healthz", &["get"]),
    ("/readyz", &["get"]),
    ("/metrics", &["get"]),
    ("/openapi.json", &["get"]),
];

/// The whole API, for whoever may open the socket that it is served on.
pub fn router(context: Context) -> Router {
    let mut router = Router::new();
    for (path, _) in ROUTES {
        if let Some(methods) = methods(path) {
            router = router.route(path, methods);
        }
    }
    strict(router).with_state(context)
}

/// The whole API, for whoever has the token and asks for this daemon by one of its names.
pub fn guarded_router(context: Context, token: auth::Token, names: host::Names) -> Router {
    let router = router(context).layer(from_fn_with_state(token, auth::check));
    router.layer(from_fn_with_state(names, host::check))
}

/// What scrapers get without a token.
pub(super) fn metrics_router(metrics: Metrics) -> Router {
    let router =
        Router::new().route("/metrics", get(handlers::metrics::show)).route("/healthz", get(handlers::node::health));
    strict(router).with_state(metrics)
}

/// With a problem document for all that the routes do not take.
fn strict<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).layer(from_fn(check_query))
}

fn methods(path: &str) -> Option<MethodRouter<Context>> {
    use handlers::{attachment, backend, network, node, service};
    Some(match path {
        "/v1/networks" => get(network::list),
        "/v1/networks/{network}" => get(network::show).put(network::put).delete(network::remove),
        "/v1/networks/{network}/attachments" => get(attachment::list),
        "/v1/networks/{network}/attachments/{attachment}" => {
            get(attachment::show).put(attachment::put).delete(attachment::remove)
        }
        "/v1/networks/{network}/services" => get(service::list),
        "/v1/networks/{network}/services/{service}" => get(service::show).put(service::put).delete(service::remove),
        "/v1/networks/{network}/services/{service}/backends/{ip}" => {
            get(backend::show).put(backend::put).delete(backend::remove)
        }
        "/v1/networks/{network}/services/{service}/backends/{ip}/drain" => post(backend::drain),
        "/v1/apply" => post(node::apply),
        "/v1/upgrade" => post(node::upgrade),
        "/v1/export" => get(node::export),
        "/v1/status" => get(node::status),
        "/healthz" => get(node::health),
        "/readyz" => get(node::ready),
        "/metrics" => get(handlers::metrics::show),
        "/openapi.json" => get(openapi::show),
        _ => return None,
    })
}

async fn not_found(request: Request) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {:.200}", request.uri().path()))
}

async fn method_not_allowed(request: Request) -> Problem {
    let detail = format!("{} is not allowed at {:.200}", request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// Only the removal of a network has a query; a misspelt one is not to be taken for none.
async fn check_query(request: Request, next: Next) -> Response {
    let takes_query = request.method() == Method::DELETE && request.uri().path().split('/').count() == 4;
    match request.uri().query() {
        Some(query) if !query.is_empty() && !takes_query => {
            let detail = format!("there is no query parameter here: {query:.80?}");
            Problem::new(StatusCode::BAD_REQUEST, detail).into_response()
        }
        _ => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_leads_somewhere() {
        for (path, _) in ROUTES {
            assert!(methods(path).is_some(), "{path}");
        }
    }
}
