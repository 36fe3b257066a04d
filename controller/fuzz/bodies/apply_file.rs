//! What holds for every file that `ringlb apply` and `POST /v1/apply` may be given.

use super::model::{check_model, check_problem, content};
use ringlb::model::{DesiredState, Model};
use ringlb::source::api::{Format, read};

/// Takes `input` as JSON and as YAML. Whether it is a state that would be made true in either. Panics if anything does not
/// hold.
pub(crate) fn check(input: &[u8]) -> bool {
    let [json, yaml] = [Format::Json, Format::Yaml].map(|format| {
        let state = read::<DesiredState>(input, format, "").map_err(check_problem).ok()?;
        check_state(&state).then_some(state)
    });
    if let (Some(json), Some(yaml)) = (&json, &yaml) {
        assert_eq!(json, yaml, "the same text means different things");
    }
    json.or(yaml).is_some()
}

/// Whether the state would be made true. Its values have been read; now what they mean together.
fn check_state(state: &DesiredState) -> bool {
    let text = serde_json::to_string(state).unwrap_or_else(|error| panic!("{error}: {state:?}"));
    let [json, yaml] =
        [Format::Json, Format::Yaml].map(|format| read::<DesiredState>(text.as_bytes(), format, "").ok());
    assert_eq!(json.as_ref(), Some(state), "{text}");
    // JSON is YAML but for characters that YAML wants escaped and JSON does not, such as U+007F.
    assert!(yaml.is_none_or(|yaml| yaml == *state), "{text}");
    let model = match Model::default().desired(state) {
        Ok(model) => model,
        Err(rejection) => {
            check_problem(rejection);
            return false;
        }
    };
    check_model(&model);
    assert_eq!(model.networks().len(), state.networks.len());
    // The same again changes nothing, nor does a restart.
    let again = model.desired(state).map_err(|rejection| rejection.to_string());
    assert_eq!(again.as_ref().map(content), Ok(content(&model)));
    let emptied = model.desired(&DesiredState { networks: Vec::new(), ..state.clone() });
    assert!(emptied.is_ok_and(|model| model.networks().is_empty()));
    true
}
