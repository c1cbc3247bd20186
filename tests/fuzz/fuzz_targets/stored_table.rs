#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| l4lbd_fuzz::properties::stored_table(bytes));
