//! Generates Rust from the project's .proto files without protoc: protox is a protobuf compiler in Rust.
//!
//! `bytes` fields become [`bytes::Bytes`], so a key or value is a view into the frame it arrived in. The declarations
//! of the services also become tables of calls: macros with one line per call (see `src/calls.rs`).
#![allow(clippy::disallowed_methods)] // a build script writes what it generates

use prost::Message;
use protox::prost_reflect::prost_types::field_descriptor_proto::Type;
use protox::prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
};
use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 11] = [
    "metapb",
    "errorpb",
    "kvrpcpb",
    "pdpb",
    "tikvpb",
    "debugpb",
    "internal",
    "keyspacepb",
    "etcdserverpb",
    "tinykvpb",
    "schedulerpb",
];

/// Package and name of a service, and the macro with its table.
const TABLES: [(&str, &str, &str); 3] = [
    ("tikvpb", "Tikv", "for_each_kv_call"),
    ("pdpb", "PD", "for_each_placement_call"),
    ("schedulerpb", "Scheduler", "for_each_scheduler_call"),
];

/// A command that has no unary call.
const EMPTY_COMMAND: &str = "empty";

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<String> = FILES.iter().map(|name| format!("proto/{name}.proto")).collect();
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = protox::compile(&paths, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let tables = TABLES.map(|table| call_table(&descriptors, table)).concat();
    fs::write(out.join("calls.rs"), tables + &command_table(&descriptors))?;
    // Errors of pairs are large and rare: inline they would make a pair of a scan ten times as large in memory.
    tonic_prost_build::configure()
        .bytes(".")
        .boxed("kvrpcpb.KvPair.error")
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}

/// A macro that passes one line per unary call of a service, with a context or header, to the macro that it is given.
fn call_table(descriptors: &FileDescriptorSet, (package, service, table): (&str, &str, &str)) -> String {
    let services = descriptors.file.iter().filter(|file| file.package() == package).flat_map(|file| &file.service);
    let methods = services.filter(|found| found.name() == service).flat_map(|found| &found.method);
    let unary = methods.filter(|method| !method.client_streaming() && !method.server_streaming());
    // Every call of the table says in the first field of its request to whom it is.
    let is_addressed = |method: &&MethodDescriptorProto| {
        let request = message(descriptors, method.input_type());
        request.field.first().is_some_and(|field| ["context", "header"].contains(&field.name()))
    };
    let lines: String =
        unary.filter(is_addressed).map(|method| call_line(descriptors, package, service, method)).collect();
    format!(
        "/// The unary calls of `{package}.{service}`; the columns are described at [`calls`].\n#[macro_export]\nmacro_rules! \
         {table} {{\n    ($apply:ident) => {{\n        $apply! {{\n{lines}        }}\n    }};\n}}\n"
    )
}

fn call_line(descriptors: &FileDescriptorSet, package: &str, service: &str, method: &MethodDescriptorProto) -> String {
    let (function, handler) = functions(method);
    let effect = format!("{:?}", method.options.clone().unwrap_or_default().idempotency_level());
    let errors = error_style(message(descriptors, method.output_type()));
    format!(
        "            {call}, {function}, {handler}, {request}, {reply}, \"/{package}.{service}/{method}\", {effect}, {errors};\n",
        call = rust_type(method.name()),
        request = rust_type(method.input_type()),
        reply = rust_type(method.output_type()),
        method = method.name(),
    )
}

/// The names of a call's function in tonic's trait and of its handler.
fn functions(method: &MethodDescriptorProto) -> (String, String) {
    let function = words(method.name()).join("_");
    let handler = function.strip_prefix("kv_").unwrap_or(&function).to_owned();
    (function, handler)
}

fn message<'a>(descriptors: &'a FileDescriptorSet, name: &str) -> &'a DescriptorProto {
    let named = |file: &&protox::prost_reflect::prost_types::FileDescriptorProto, message: &DescriptorProto| {
        name == format!(".{}.{}", file.package(), message.name())
    };
    let messages = descriptors.file.iter().flat_map(|file| file.message_type.iter().map(move |m| (file, m)));
    let mut found = messages.filter(|(file, message)| named(file, message)).map(|(_, message)| message);
    found.next().expect("the compiler has resolved the name")
}

/// A macro that passes one line per command of a batch to the macro that it is given: the command has the request of
/// one of the unary calls.
fn command_table(descriptors: &FileDescriptorSet) -> String {
    let request = &message(descriptors, ".tikvpb.BatchCommandsRequest").nested_type[0];
    let methods = || descriptors.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
    let line = |field: &FieldDescriptorProto| {
        let method = methods().find(|method| method.input_type() == field.type_name()).expect("it is a unary call");
        let (function, handler) = functions(method);
        format!("            {}, {function}, {handler};\n", rust_type(field.name()))
    };
    let with_call = request.field.iter().filter(|field| field.name() != EMPTY_COMMAND);
    let lines: String = with_call.map(line).collect();
    format!(
        "/// The commands of `BatchCommands`, except the empty one: command, function and handler, as described at [`calls`].\n\
         #[macro_export]\nmacro_rules! for_each_batch_command {{\n    ($apply:ident) => {{\n        $apply! {{\n\
         {lines}        }}\n    }};\n}}\n"
    )
}

/// Where a reply holds an error: a text, one error about a key, a list of those, or only in its pairs.
fn error_style(reply: &DescriptorProto) -> String {
    let is_of = |field_type: &str, name: &str| field_type.ends_with(&format!(".{name}"));
    for field in &reply.field {
        match field.name() {
            "error" if field.r#type() == Type::String => return "text".into(),
            "error" if is_of(field.type_name(), "KeyError") => return "key".into(),
            "errors" if is_of(field.type_name(), "KeyError") => return "keys".into(),
            _ => {}
        }
    }
    let pairs = reply.field.iter().find(|field| is_of(field.type_name(), "KvPair"));
    pairs.map_or("none".into(), |field| format!("pairs {}", field.name()))
}

/// The last part of a name, as prost spells it as a type.
fn rust_type(name: &str) -> String {
    let name = name.rsplit('.').next().unwrap_or(name);
    let capital = |word: String| word[..1].to_uppercase() + &word[1..];
    words(name).into_iter().map(capital).collect()
}

/// The words of a name in lower case; a run of capitals is one word: `GetGCSafePoint` is get, gc, safe, point.
fn words(name: &str) -> Vec<String> {
    if name.contains('_') {
        return name.split('_').map(str::to_owned).collect();
    }
    let letters: Vec<char> = name.chars().collect();
    let mut words: Vec<String> = Vec::new();
    for (at, letter) in letters.iter().enumerate() {
        let follows_lower = at > 0 && letters[at - 1].is_lowercase();
        let begins_word = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if at == 0 || (letter.is_uppercase() && (follows_lower || begins_word)) {
            words.push(String::new());
        }
        words.last_mut().expect("the first letter begins a word").extend(letter.to_lowercase());
    }
    words
}
