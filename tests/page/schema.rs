//! Answers against their description by OpenAPI: the parts of JSON Schema that it uses. A keyword that is not known
//! here fails, so that no rule of the description goes unchecked.

use serde_json::Value;

/// Returns what an answer has that its schema does not allow. `root` is the whole description.
pub fn objections(root: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.strip_prefix('#').expect("a place in the same description");
        return objections(root, root.pointer(pointer).expect("a schema that exists"), value, place);
    }
    let mut found = Vec::new();
    for (keyword, rule) in schema.as_object().expect("a schema") {
        match keyword.as_str() {
            "type" => {
                let kinds = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                if !kinds.iter().any(|kind| is_kind(kind.as_str().unwrap(), value)) {
                    found.push(format!("{place}: {value} is no {rule}"));
                }
            }
            "enum" if !rule.as_array().unwrap().contains(value) => {
                found.push(format!("{place}: {value} is none of {rule}"));
            }
            "required" => {
                let missing = rule
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|name| value.get(name.as_str().unwrap()).is_none());
                found.extend(missing.map(|name| format!("{place}: {name} is missing")));
            }
            "properties" => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    let place = format!("{place}.{name}");
                    match rule.get(name) {
                        Some(rule) => found.extend(objections(root, rule, inner, &place)),
                        None if schema["additionalProperties"] == false => {
                            found.push(format!("{place} is not described"));
                        }
                        None => {}
                    }
                }
            }
            "items" => {
                for (number, inner) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(objections(root, rule, inner, &format!("{place}[{number}]")));
                }
            }
            "format" if rule == "date-time" => {
                let is_time = value.as_str().is_none_or(|text| text.parse::<jiff::Timestamp>().is_ok());
                if !is_time {
                    found.push(format!("{place}: {value} is no time"));
                }
            }
            "enum" | "additionalProperties" | "description" => {}
            other => panic!("{other} is a keyword that this test does not know"),
        }
    }
    found
}

fn is_kind(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => panic!("{kind} is no type"),
    }
}
