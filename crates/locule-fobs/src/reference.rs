//! References to arrays, and their place in a value.

use crate::{ArrayRef, Dxo, Map, PeerContext, Shareable, Value};

impl Value {
    /// Calls `visit` for each place in this value that holds a reference to an array; whatever it puts
    /// there stays.
    ///
    /// # Errors
    /// The first that `visit` gives.
    pub fn visit_array_refs<E>(
        &mut self,
        visit: &mut impl FnMut(&ArrayRef) -> Result<Option<Value>, E>,
    ) -> Result<(), E> {
        match self {
            Value::ArrayRef(reference) => {
                if let Some(found) = visit(reference)? {
                    *self = found;
                }
                Ok(())
            }
            Value::List(items) | Value::Tuple(items) | Value::Set(items) => {
                items.iter_mut().try_for_each(|item| item.visit_array_refs(visit))
            }
            Value::Map(map) => map.visit_array_refs(visit),
            Value::OrderedDict(entries) => {
                entries.iter_mut().try_for_each(|(_, value)| value.visit_array_refs(visit))
            }
            Value::Shareable(shareable) => shareable.visit_array_refs(visit),
            Value::Dxo(Dxo { data, meta, .. }) => {
                data.visit_array_refs(visit)?;
                meta.visit_array_refs(visit)
            }
            Value::Context(PeerContext { props }) => {
                props.iter_mut().try_for_each(|(_, prop)| prop.value.visit_array_refs(visit))
            }
            Value::Object(object) => object.data.visit_array_refs(visit),
            Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::UInt(_)
            | Value::Float(_)
            | Value::Str(_)
            | Value::Bytes(_)
            | Value::Datetime(_)
            | Value::Enum { .. }
            | Value::Array(_)
            | Value::OpaqueArray(_)
            | Value::Scalar(_)
            | Value::Datum(_) => Ok(()),
        }
    }
}

impl Map {
    /// As [`Value::visit_array_refs`], for all values of the dictionary.
    ///
    /// # Errors
    /// The first that `visit` gives.
    pub fn visit_array_refs<E>(
        &mut self,
        visit: &mut impl FnMut(&ArrayRef) -> Result<Option<Value>, E>,
    ) -> Result<(), E> {
        self.values_mut().try_for_each(|value| value.visit_array_refs(visit))
    }
}

impl Shareable {
    /// As [`Value::visit_array_refs`], for headers and fields.
    ///
    /// # Errors
    /// The first that `visit` gives.
    pub fn visit_array_refs<E>(
        &mut self,
        visit: &mut impl FnMut(&ArrayRef) -> Result<Option<Value>, E>,
    ) -> Result<(), E> {
        self.headers.visit_array_refs(visit)?;
        self.fields.visit_array_refs(visit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{DownloadSource, RefKind};

    #[test]
    fn every_reference_is_found_wherever_it_lies_and_can_be_replaced() {
        let source = Arc::new(DownloadSource { fqcn: "server".into(), ref_id: "r".into() });
        let reference = |item: &str| {
            Value::ArrayRef(ArrayRef {
                kind: RefKind::Numpy,
                item: item.into(),
                source: source.clone(),
                passed_on: false,
            })
        };
        let mut inner = Shareable::new();
        inner.fields.insert("model", Value::List(vec![reference("T0"), Value::Tuple(vec![reference("T1")])]));
        inner.set_header("h", reference("T2"));
        let mut value = Value::OrderedDict(vec![
            (Value::Int(1), Value::Shareable(inner)),
            (Value::Int(2), reference("T3")),
        ]);
        let mut found = Vec::new();
        let mut replace = |reference: &ArrayRef| {
            found.push(reference.item.clone());
            Ok::<_, ()>((reference.item != "T3").then_some(Value::Int(7)))
        };
        value.visit_array_refs(&mut replace).unwrap();
        value.visit_array_refs(&mut replace).unwrap();
        assert_eq!(found, ["T2", "T0", "T1", "T3", "T3"]);
    }
}
