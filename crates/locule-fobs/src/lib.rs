//! The object format of payloads: values, Shareable, DXO, numpy arrays, datums.
