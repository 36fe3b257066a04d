//! The part of JSON Schema that the API's description uses.

use serde_json::Value;
use std::collections::BTreeMap;

/// The API's description, as the daemon serves it.
pub(crate) struct Description(pub(crate) Value);

impl Description {
    /// What is wrong with `response` to a request, by the description; nothing if it is as described.
    pub(crate) fn check_response(&self, method: &str, path: &str, status: u16, body: &Value) -> Result<(), String> {
        let template = self.template(path).ok_or_else(|| format!("no path for {path}"))?;
        let operation = &self.0["paths"][&template][method.to_ascii_lowercase()];
        let content = &operation["responses"][status.to_string()]["content"];
        let kind = if status < 300 { "application/json" } else { "application/problem+json" };
        let schema = &content[kind]["schema"];
        if schema.is_null() {
            return Err(format!("{method} {template} does not describe status {status}"));
        }
        self.check(schema, body, "body")
    }

    /// Whether `value` is what `schema` says.
    pub(crate) fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.check(self.resolve(reference), value, at);
        }
        if let Some(options) = schema["oneOf"].as_array() {
            let fitting = options.iter().filter(|option| self.check(option, value, at).is_ok()).count();
            return if fitting == 1 { Ok(()) } else { Err(format!("{at}: {fitting} of the forms fit {value}")) };
        }
        if let Some(constant) = schema.get("const") {
            return if constant == value { Ok(()) } else { Err(format!("{at}: {value} is not {constant}")) };
        }
        let kinds: Vec<_> = match &schema["type"] {
            Value::String(kind) => vec![kind.as_str()],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            other => return Err(format!("{at}: the schema has no type but {other}")),
        };
        if !kinds.contains(&kind_of(value)) {
            return Err(format!("{at}: {value} is not {kinds:?}"));
        }
        if let Some(options) = schema["enum"].as_array()
            && !options.contains(value)
        {
            return Err(format!("{at}: {value} is not one of {options:?}"));
        }
        match value {
            Value::Object(fields) => {
                for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if !fields.contains_key(required) {
                        return Err(format!("{at}: {required} is missing"));
                    }
                }
                let described = self.properties(schema);
                // The two differ only in whether they see what is described by `allOf`.
                let additional = schema.get("unevaluatedProperties").unwrap_or(&schema["additionalProperties"]);
                for (name, field) in fields {
                    match (described.get(name.as_str()), additional) {
                        (Some(described), _) => self.check(described, field, &format!("{at}.{name}"))?,
                        (_, Value::Object(_)) => self.check(additional, field, &format!("{at}.{name}"))?,
                        (_, Value::Bool(false)) => return Err(format!("{at}: {name} is not described")),
                        _ => {}
                    }
                }
                Ok(())
            }
            Value::Array(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| self.check(&schema["items"], item, &format!("{at}[{index}]"))),
            Value::Number(number) => {
                let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_u64());
                let too_small = least.is_some_and(|least| number.as_i64().is_some_and(|number| number < least));
                let too_large = most.is_some_and(|most| number.as_u64().is_some_and(|number| number > most));
                if too_small || too_large { Err(format!("{at}: {number} is out of range")) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// The fields that a schema describes, itself or by others of which it says `allOf`.
    pub(crate) fn properties<'a>(&'a self, schema: &'a Value) -> BTreeMap<&'a str, &'a Value> {
        let own = schema["properties"].as_object().into_iter().flatten().map(|(name, schema)| (name.as_str(), schema));
        let others = schema["allOf"].as_array().into_iter().flatten();
        let others = others.flat_map(|other| self.properties(self.resolve(other["$ref"].as_str().unwrap())));
        own.chain(others).collect()
    }

    /// What a `$ref` means.
    pub(crate) fn resolve(&self, reference: &str) -> &Value {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        let schema = &self.0["components"]["schemas"][name];
        assert!(schema.is_object(), "{reference} leads nowhere");
        schema
    }

    /// The path of the description that a request's path is one of.
    fn template(&self, path: &str) -> Option<String> {
        let path = path.split('?').next().unwrap();
        let fits = |template: &str| {
            let (mut one, mut two) = (template.split('/'), path.split('/'));
            loop {
                match (one.next(), two.next()) {
                    (None, None) => return true,
                    (Some(template), Some(part)) if template == part || template.starts_with('{') => {}
                    _ => return false,
                }
            }
        };
        self.0["paths"].as_object().unwrap().keys().find(|template| fits(template)).cloned()
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
