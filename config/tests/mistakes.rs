//! Text in, report out: one test for each kind of mistake, and one with all at once.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use pgward_config::{Loaded, Report, Sources, parse_with};

const BASE: &str = include_str!("base.toml");

fn env(name: &str) -> Option<String> {
    match name {
        "EHR_APP" | "APP" => Some("geheim".into()),
        "DIRECTORY_KEY" | "AUDIT_KEY" => Some("0123456789abcdef0123456789abcdef".into()),
        "EMPTY" => Some(String::new()),
        "SHORT" => Some("0123".into()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Loaded, Report> {
    let file = |path: &Path| match path.to_str() {
        Some("etc/app.password") => Ok("geheim\n".into()),
        _ => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    };
    // One link, from `/linked` to the folder.
    let real = |path: &Path| path.strip_prefix("/linked").map_or(path.to_owned(), |rest| Path::new("etc").join(rest));
    let sources = Sources { env: &env, file: &file, real: &real, salt: &|_| [7; 16] };
    parse_with(text, Path::new("etc/pgward.toml"), &sources)
}

/// The base with one piece replaced, which must be in it exactly once.
fn with(from: &str, to: &str) -> String {
    assert_eq!(BASE.matches(from).count(), 1, "{from:?} must be in the base once");
    BASE.replace(from, to)
}

fn report(text: &str) -> String {
    match read(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(report) => report.to_string(),
    }
}

/// Replaces a piece, and claims that the report says each of these words, and that it is the only error.
fn one_mistake(from: &str, to: &str, says: &[&str]) {
    let report = report(&with(from, to));
    for word in says {
        assert!(report.contains(word), "expected {word:?} in:\n{report}");
    }
    assert!(report.contains("\n1 error\n"), "{report}");
    assert!(!report.contains("geheim"), "a secret in:\n{report}");
}

#[test]
fn the_base_has_no_mistake() {
    let loaded = read(BASE).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings_report());
}

#[test]
fn the_region_column_is_not_the_key() {
    one_mistake(
        "region_column = \"home_region\"",
        "region_column = \"ID\"",
        &["`region_column` is `id`, as `key` is", "the column with the patient's region", "leave `region_column` out"],
    );
}

#[test]
fn a_number_beyond_its_range_is_told_both_ends() {
    one_mistake(
        "interval = \"10s\"",
        "healthy_after = 99999999999",
        &["`healthy_after` of [health] cannot be 99999999999", "expected a whole number from 1 to 4294967295"],
    );
}

#[test]
fn nobody_is_called_as_everybody_is_in_a_plain_pooler() {
    one_mistake("name = \"app\"", "name = \"*\"", &["`name` of [[users]] cannot be \"*\"", "has no meaning here"]);
}

#[test]
fn every_file_of_pgward_is_its_own() {
    let audit = "path = \"audit.jsonl\"";
    one_mistake(audit, "path = \"./pgward.toml\"", &["`path` of [audit] is this configuration file"]);
    one_mistake(audit, "path = \"/linked/pgward.toml\"", &["`path` of [audit] is this configuration file"]);
    one_mistake(audit, "path = \"patients.dir\"", &["`path` of [audit] is the file of `path` of [directory]"]);
    one_mistake(audit, "path = \"pgward.sock\"", &["`path` of [audit] is the file of `control_socket` of [proxy]"]);
    one_mistake(audit, "path = \"patients.dir.commits\"", &["the commit log", "is the file of `path` of [audit]"]);
    let secret = with("password = { env = \"APP\" }", "password = { file = \"app.password\" }");
    assert!(read(&secret).is_ok());
    let both = report(&secret.replace(audit, "path = \"app.password\""));
    assert!(both.contains("`path` of [audit] is the file of `file` of `password` of [[users]]"), "{both}");
    let roles = secret.replace("password = { env = \"EHR_APP\" }", "password = { file = \"app.password\" }");
    assert!(read(&roles).is_ok(), "secrets may share a file");
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    one_mistake(
        "[http]\naddress",
        "[http]\nadress",
        &["pgward.toml:16:1: error: unknown key `adress`", "did you mean `address`?"],
    );
}

#[test]
fn a_missing_key_says_what_it_is_for() {
    one_mistake("database = \"ehr\"\n", "", &["[proxy] has no `database`", "the database name that clients ask for"]);
    one_mistake("name = \"app\"\n", "", &["[[users]] has no `name`"]);
    one_mistake("path = \"audit.jsonl\"\n", "", &["[audit] has no `path`"]);
}

#[test]
fn a_misspelt_required_key_is_one_mistake() {
    one_mistake("database = \"ehr\"", "databse = \"ehr\"", &["unknown key `databse`", "did you mean `database`?"]);
}

#[test]
fn a_key_like_no_other_lists_the_known_ones() {
    one_mistake(
        "[pools.general]",
        "[pools.general]\ncolour = 1",
        &["no such key", "check_interval, idle_timeout, max,"],
    );
    one_mistake("[health]", "[helth]", &["unknown key `helth` in the file", "did you mean `health`?"]);
}

#[test]
fn a_wrong_type_says_which_was_expected() {
    one_mistake(
        "max = 200",
        "max = \"200\"",
        &["`max` of [pools.general] is a string", "expected a whole number from 1"],
    );
    one_mistake("max = 200", "max_lifetime = 7200", &["is an integer", "expected a duration such as"]);
    one_mistake("[\"us-east\"]", "\"us-east\"", &["`patient_regions` of [[shards]] is a string"]);
    one_mistake("[http]\naddress", "[[http]]\naddress", &["`http` of the file is an array", "expected a table [http]"]);
    one_mistake("kind = \"reference\"", "kind = true", &["`kind` of [[tables]] is a boolean"]);
}

#[test]
fn a_word_that_is_none_of_the_words() {
    one_mistake(
        "class = \"emergency\"",
        "class = \"emergncy\"",
        &["`class` of [[listeners]] cannot be \"emergncy\"", "did you mean \"emergency\"?", "\"normal\" or \"low\""],
    );
    one_mistake("\"patient_region\"", "\"provider_network\"", &["expected \"patient_region\" or \"hash\""]);
}

#[test]
fn bad_durations_and_sizes() {
    one_mistake("max = 200", "idle_timeout = \"30\"", &["`30` has no unit behind 30", "\"1h30m\""]);
    one_mistake("max = 200", "idle_timeout = \"0s\"", &["`0s` is no time at all"]);
    one_mistake("database", "max_message_bytes = \"64mb\"\ndatabase", &["`mb` in `64mb` is not a unit", "MiB"]);
    one_mistake("database", "max_startup_bytes = \"1MiB\"\ndatabase", &["too large", "at most 10000 bytes"]);
}

#[test]
fn bad_addresses_and_urls() {
    one_mistake("\"127.0.0.1:6432\"", "\"localhost:6432\"", &["`localhost:6432` is not an address with a port"]);
    one_mistake("postgresql://127.0.0.1:7000/ehr", "mysql://127.0.0.1:7000/ehr", &["begin with postgresql://"]);
    one_mistake("127.0.0.1:7000/ehr", "127.0.0.1:70000/ehr", &["`70000` is not a port"]);
}

#[test]
fn duplicate_names_ids_and_addresses_point_at_both() {
    one_mistake("\"east-emergency\"", "\"east\"", &["there are two listeners `east`", "the first"]);
    one_mistake("id = \"west\"", "id = \"east\"", &["there are two shards `east`"]);
    one_mistake(
        "name = \"icd10_codes\"",
        "name = \"public.Patients\"\nkind = \"local\"\n[[tables]]\nname = \"b\"",
        &["there are two tables `public.patients`"],
    );
    one_mistake(
        "id = \"us-west-2\"\n\n",
        "id = \"us-west-2\"\n[[regions]]\nid = \"us-west-2\"\n\n",
        &["there are two regions `us-west-2`"],
    );
    one_mistake(
        "[[users]]",
        "[[users]]\nname = \"app\"\npassword = { env = \"APP\" }\n[[users]]",
        &["there are two users `app`"],
    );
    one_mistake("\"127.0.0.1:6433\"", "\"127.0.0.1:6432\"", &["127.0.0.1:6432 is taken by listener `east`"]);
    one_mistake("\"127.0.0.1:9090\"", "\"0.0.0.0:6433\"", &["0.0.0.0:6433 is taken by listener `east-emergency`"]);
    one_mistake(
        "\"127.0.0.1:9090\"",
        "\"[::]:6433\"",
        &["[::]:6433 is taken by listener `east-emergency`", "it alone"],
    );
    one_mistake("\"127.0.0.1:9090\"", "\"[::ffff:127.0.0.1]:6433\"", &["is taken by listener `east-emergency`"]);
    assert!(read(&with("\"127.0.0.1:9090\"", "\"[::1]:6433\"")).is_ok());
    one_mistake("127.0.0.1:7010/ehr", "127.0.0.1:7001/other", &["127.0.0.1:7001 is node `east/replica-1` already"]);
    one_mistake(
        "127.0.0.1:7010/ehr\"",
        "127.0.0.1:7010/ehr\", id = \"east/primary\"",
        &["there are two nodes `east/primary`"],
    );
}

#[test]
fn unknown_regions_shards_and_roles() {
    one_mistake(
        "id = \"west\"\nregion = \"us-west-2\"",
        "id = \"west\"\nregion = \"us-west-3\"",
        &["unknown region `us-west-3`", "did you mean `us-west-2`?"],
    );
    one_mistake(
        "prohibited = [{ region = \"eu-west-1\"",
        "prohibited = [{ region = \"mars\"",
        &["unknown region `mars`", "the regions are us-east-1, us-west-2, eu-west-1"],
    );
    one_mistake("6432\"\norigin = \"us-east-1\"", "6432\"\norigin = \"us-eats-1\"", &["did you mean `us-east-1`?"]);
    one_mistake(
        "[sharding]",
        "[sharding]\ndefault_shard = { shard = \"est\", origins = [\"us-east-1\"] }",
        &["unknown shard `est`", "did you mean `east`?"],
    );
    one_mistake(
        "name = \"app\"",
        "name = \"app\"\nserver_role = \"ehr_ap\"",
        &["unknown server role `ehr_ap`", "did you mean `ehr_app`?"],
    );
    for role in ["none", "o'neill"] {
        let written = format!("name = \"app\"\nmay_set_role = [\"ward\", \"{role}\"]");
        one_mistake("name = \"app\"", &written, &["`may_set_role` of user `app` cannot name this role"]);
    }
}

#[test]
fn patient_regions_are_served_exactly_once() {
    one_mistake("[\"us-west\"]", "[\"us-east\"]", &["`us-east` is served twice", "by `west` here", "by `east` here"]);
    one_mistake("[\"us-west\"]", "[]", &["shard `west` serves nobody"]);
    one_mistake(
        "patient_regions = [\"us-west\"]\n",
        "",
        &["shard `west` serves nobody", "strategy is `patient_region`"],
    );
    let listed = "[sharding]\npatient_regions = [\"us-east\", \"us-west\", \"ap-south\"]";
    one_mistake("[sharding]", listed, &["patient region `ap-south` is served by nobody", "default_shard"]);
    let text =
        with("[sharding]", &format!("{listed}\ndefault_shard = {{ shard = \"east\", origins = [\"us-east-1\"] }}"));
    assert!(read(&text).is_ok(), "the default shard serves it");
    one_mistake("[sharding]", "[sharding]\npatient_regions = [\"us-east\"]", &["unknown patient region `us-west`"]);
}

#[test]
fn rules_of_sovereignty_are_quoted() {
    one_mistake(
        "ehr\", region = \"us-west-2\"",
        "ehr\", region = \"eu-west-1\"",
        &[
            "replica `east/replica-2` in region `eu-west-1`: region `us-east-1` prohibits `eu-west-1`",
            "HIPAA requires US data residency",
            "the rule",
        ],
    );
    one_mistake(
        "postgresql://127.0.0.1:7010/ehr\" }",
        "postgresql://127.0.0.1:7010/ehr\" }\nreplicas = [{ url = \"postgresql://127.0.0.1:7011/ehr\", region = \"us-east-1\" }]",
        &["the rule of region `us-west-2` does not allow it", "resident, with no `replicas_in`"],
    );
    one_mistake(
        "backup_region = \"us-west-2\"",
        "backup_region = \"eu-west-1\"",
        &["the backup region `eu-west-1` of region `us-east-1`", "prohibited: \"HIPAA"],
    );
    one_mistake(
        "backup_region",
        "access_from = [\"eu-west-1\"]\nbackup_region",
        &["`access_from` of region `us-east-1` names `eu-west-1`: region `us-east-1` prohibits `eu-west-1`"],
    );
    one_mistake(
        "[sharding]",
        "[sharding]\ndefault_shard = { shard = \"east\", origins = [\"eu-west-1\"] }",
        &["origin `eu-west-1` cannot fall back to shard `east`"],
    );
}

#[test]
fn a_region_that_is_not_resident_may_be_copied_where_it_is_not_prohibited() {
    let open = BASE.replace("replicas_in = [\"us-west-2\"]", "resident = false");
    assert!(read(&open).is_ok());
}

#[test]
fn pools_that_contradict_themselves_or_their_server() {
    one_mistake(
        "max = 200",
        "min = 300\nmax = 200",
        &["[pools.general] has a minimum above its maximum", "at most 200"],
    );
    one_mistake("max = 200", "min = 201", &["the maximum is the default"]);
    one_mistake("max = 200", "max = 200\nmax_pinned = 201", &["keep more than there is", "at most 200"]);
    one_mistake("max = 200", "max = 0", &["`max` of [pools.general] cannot be 0"]);
    one_mistake("max = 200", "max = -1", &["`max` of [pools.general] cannot be -1"]);
    one_mistake(
        "max = 200",
        "max = 400",
        &[
            "the pools of a primary of shard `east` exceed its server",
            "emergency 50 + general 400 + background 50 = 500 connections",
        ],
    );
}

#[test]
fn trust_is_for_loopback_alone() {
    one_mistake("\"127.0.0.1:6432\"", "\"0.0.0.0:6432\"\nauth = \"trust\"", &["trusts everyone", "loopback"]);
    let trusting = with("\"127.0.0.1:6432\"", "\"127.0.0.1:6432\"\nauth = \"trust\"");
    assert!(read(&trusting).is_ok());
}

#[test]
fn a_user_needs_a_proof_where_a_listener_asks_for_one() {
    let password = "password = { env = \"APP\" }\n";
    one_mistake(password, "", &["user `app` has neither `verifier` nor `password`", "listener `east` asks"]);
    let trusting =
        BASE.replace("origin = \"us-east-1\"", "origin = \"us-east-1\"\nauth = \"trust\"").replace(password, "");
    assert!(read(&trusting).unwrap().config.users[0].verifier.is_none());
}

#[test]
fn secrets_in_clear_are_refused_and_not_repeated() {
    one_mistake("password = { env = \"APP\" }", "password = \"geheim\"", &["stands here in clear", "\"******\""]);
    one_mistake("password = { env = \"APP\" }", "verifier = \"geheim\"", &["is not a SCRAM-SHA-256 verifier"]);
    one_mistake("//127.0.0.1:7000", "//app:geheim@127.0.0.1:7000", &["names a user or a password"]);
    one_mistake("key = { env = \"AUDIT_KEY\" }", "key = \"geheim\"", &["`key` of [audit] stands here in clear"]);
    // Nor by the report on another mistake of the same line.
    let report = report(&with("password = { env = \"APP\" }", "verifier = \"geheim\"").replace("\"app\"", "\"\""));
    assert!(!report.contains("geheim"), "{report}");
}

#[test]
fn secrets_that_cannot_be_read() {
    let key = "key = { env = \"AUDIT_KEY\" }";
    one_mistake(
        key,
        "key = { env = \"NOPE\" }",
        &["74:15: error: the environment variable `NOPE` is not set"].map(|s| s.trim_start_matches("74:15: ")),
    );
    one_mistake(key, "key = { file = \"nope\" }", &["the file etc/nope cannot be read"]);
    one_mistake(key, "key = { env = \"EMPTY\" }", &["`key` of [audit] is empty"]);
    one_mistake(key, "key = { env = \"SHORT\" }", &["has only 4 characters", "openssl rand -hex 32"]);
    one_mistake(key, "key = {}", &["says neither `env` nor `file`"]);
    one_mistake(key, "key = { env = \"APP\", file = \"app.password\" }", &["has both `env` and `file`"]);
    one_mistake(key, "key = { envv = \"APP\" }", &["unknown key `envv`", "did you mean `env`?"]);
}

#[test]
fn a_secret_file_is_found_beside_the_toml_and_its_last_newline_is_not_part_of_it() {
    let by_file = read(&with("{ env = \"APP\" }", "{ file = \"app.password\" }")).unwrap().config;
    let by_env = read(BASE).unwrap().config;
    assert_eq!(by_file.users[0].verifier, by_env.users[0].verifier);
    assert!(by_env.users[0].verifier.as_ref().unwrap().expose().starts_with("SCRAM-SHA-256$4096:"));
}

#[test]
fn tables_know_their_patients() {
    one_mistake("key = \"id\"\n", "", &["[[tables]] has no `key`", "of kind patient"]);
    one_mistake("kind = \"reference\"", "kind = \"reference\"\nkey = \"code\"", &["no meaning for a reference table"]);
    one_mistake(
        "\"home_region\"",
        "\"home_region\"\ncolumns = [\"id\", \"home_regoin\"]",
        &["`region_column` names `home_region`, which is not among the columns", "did you mean `home_regoin`?"],
    );
    one_mistake("\"icd10_codes\"", "\"a.b.c\"", &["`a.b.c` has more than one dot"]);
}

#[test]
fn ceilings_and_workloads() {
    one_mistake("name = \"app\"", "name = \"app\"\nclass = \"high\"\nceiling = \"low\"", &["below the user's class"]);
    one_mistake(
        "name = \"app\"",
        "name = \"app\"\nworkload = \"analytics\"\nclass = \"high\"",
        &["of class low at most"],
    );
}

const HASH: &[(&str, &str)] = &[
    ("strategy = \"patient_region\"", "strategy = \"hash\""),
    ("patient_regions = [\"us-east\"]", "hash_range = { start = 0, end = \"0x8000000000000000\" }"),
    ("patient_regions = [\"us-west\"]", "hash_range = { start = \"0x8000000000000000\" }"),
    ("path = \"patients.dir\"\nkey = { env = \"DIRECTORY_KEY\" }", "kind = \"hash\""),
];

fn hash(from: &str, to: &str) -> String {
    let text = HASH.iter().fold(BASE.to_owned(), |text, (from, to)| text.replace(from, to));
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

#[test]
fn hash_ranges_cover_everything_once() {
    let config = read(&hash("", "")).unwrap().config;
    assert_eq!(config.shards[1].hash_range, Some((1 << 63, 1 << 64)));
    for (from, to, says) in [
        ("end = \"0x8000000000000000\"", "end = \"0x9000000000000000\"", "ranges of `east` and `west` overlap"),
        ("end = \"0x8000000000000000\"", "end = 5", "no shard has the hashes from 0x5 to 0x8000000000000000"),
        ("start = 0", "start = 7", "no shard has the hashes from 0x0 to 0x7"),
        (
            "start = \"0x8000000000000000\"",
            "start = \"0x8000000000000000\", end = \"0xffffffffffffffff\"",
            "from 0xffffffffffffffff to 2^64",
        ),
        ("start = 0", "start = \"0x8000000000000000\"", "the hash range of [[shards]] is empty"),
        ("start = 0", "start = \"zero\"", "`start` of `hash_range` of [[shards]] is not a hash"),
        ("start = 0", "start = \"0x10000000000000001\"", "is not a hash"),
    ] {
        let report = report(&hash(from, to));
        assert!(report.contains(says) && report.contains("\n1 error\n"), "expected {says:?} in:\n{report}");
    }
}

#[test]
fn the_strategies_are_not_mixed() {
    one_mistake(
        "path = \"patients.dir\"\nkey = { env = \"DIRECTORY_KEY\" }",
        "kind = \"hash\"",
        &["the directory does not fit the strategy `patient_region`"],
    );
    one_mistake(
        "patient_regions = [\"us-west\"]",
        "patient_regions = [\"us-west\"]\nhash_range = { start = 0 }",
        &["`hash_range` has no meaning with strategy `patient_region`"],
    );
    let report = report(&hash("kind = \"hash\"", "kind = \"embedded\"\npath = \"a\"\nkey = { env = \"AUDIT_KEY\" }"));
    assert!(report.contains("the directory does not fit the strategy `hash`"), "{report}");
}

#[test]
fn a_missing_part_is_missed_at_the_end_of_the_file() {
    let text = &BASE[..BASE.find("[audit]").unwrap()];
    let report = report(text);
    assert!(report.contains("the file has no `audit`"), "{report}");
    let empty = self::report("");
    for part in ["listeners", "users", "regions", "shards", "directory", "audit"] {
        assert!(empty.contains(&format!("the file has no `{part}`")), "{empty}");
    }
}

#[test]
fn syntax_is_reported_alone() {
    let report = report(&with("[http]", "[http\nunknown = 1"));
    assert!(report.contains("pgward.toml:15:6: error: not TOML"), "{report}");
    assert!(!report.contains("unknown key"), "{report}");
    let twice = self::report(&with("database = \"ehr\"", "database = \"ehr\"\ndatabase = \"ehr\""));
    assert!(twice.contains("pgward.toml:3:1: error: not TOML: duplicate key"), "{twice}");
}

#[test]
fn all_at_once_in_the_order_of_the_file() {
    let mut text = BASE.to_owned();
    for (from, to) in [
        ("database = \"ehr\"", "database = 7\nwokers = 2\nstartup_timeout = \"15\""),
        ("\"127.0.0.1:6433\"", "\"127.0.0.1:6432\""),
        ("password = { env = \"APP\" }", "password = { env = \"NOPE\" }"),
        ("key = \"id\"\n", ""),
        ("backup_region = \"us-west-2\"", "backup_region = \"eu-west-1\""),
        ("[\"us-west\"]", "[\"us-east\"]"),
        ("max = 200", "max = 0"),
        ("\"audit.jsonl\"", "\"audit.jsonl\"\npolicy = \"wirtten\""),
    ] {
        text = text.replace(from, to);
    }
    let report = read(&text).unwrap_err();
    let lines: Vec<usize> = report.problems().iter().map(|problem| report.position(problem).0).collect();
    assert!(lines.is_sorted(), "{lines:?}");
    let all = report.to_string();
    assert!(all.ends_with("\n10 errors\n"), "{all}");
    for says in [
        "`wokers`",
        "is an integer",
        "no unit",
        "taken by",
        "NOPE",
        "no `key`",
        "prohibits",
        "served twice",
        "cannot be 0",
        "did you mean \"written\"?",
    ] {
        assert!(all.contains(says), "expected {says:?} in:\n{all}");
    }
}

#[test]
fn warnings_do_not_refuse_the_file() {
    for (from, to, says) in [
        ("[sharding]", "[sharding]\nundeclared_tables = \"local\"", "tables that are not declared are not refused"),
        ("\"audit.jsonl\"", "\"audit.jsonl\"\npolicy = \"buffered\"", "before their record is in the file"),
        ("max = 200", "max = 19", "too small for the exact shares"),
        ("class = \"emergency\"\n", "", "nobody can make an emergency statement"),
        ("6432\"\norigin = \"us-east-1\"", "6432\"\norigin = \"eu-west-1\"", "no shard is in region `eu-west-1`"),
    ] {
        let loaded = read(&with(from, to)).unwrap();
        let report = loaded.warnings_report().to_string();
        assert!(report.contains(says) && report.ends_with("\n1 warning\n"), "expected {says:?} in:\n{report}");
    }
}

#[test]
fn colour_is_the_callers_choice() {
    let report = read(&with("[http]\naddress", "[http]\nadress")).unwrap_err();
    assert!(!report.render(false).contains('\x1b'));
    assert!(report.render(true).contains("\x1b["));
}

#[test]
fn a_file_that_cannot_be_read_is_said_so() {
    let report = pgward_config::load(Path::new("nowhere/pgward.toml")).unwrap_err().to_string();
    assert!(report.starts_with("nowhere/pgward.toml: error: cannot be read"), "{report}");
}

/// Whatever stands in the file, the answer is a configuration or a report.
#[test]
fn no_text_is_too_wrong_for_a_report() {
    let answer = |text: &str| match read(text) {
        Ok(_) => String::new(),
        Err(report) => report.render(true),
    };
    for (at, _) in BASE.char_indices().step_by(23) {
        answer(&BASE[..at]);
        answer(&BASE[at..]);
    }
    let lines: Vec<&str> = BASE.lines().collect();
    for n in 0..lines.len() {
        for junk in ["", "x = 1", "ä = \"日本\"", "[[proxy]]", "[x.y]"] {
            let mut lines = lines.clone();
            lines[n] = junk;
            answer(&lines.join("\n"));
        }
        let Some((key, _)) = lines[n].split_once(" = ") else { continue };
        for junk in [
            "\"日本\"",
            "\"\"",
            "-1",
            "99999999999999999999999",
            "1.5",
            "[]",
            "{}",
            "[{}, 1, \"ü\"]",
            "true",
            "1979-05-27",
        ] {
            let mut lines = lines.clone();
            let line = format!("{key} = {junk}");
            lines[n] = &line;
            answer(&lines.join("\r\n"));
        }
    }
    for text in ["\n\n\n", "\u{feff}", "# ä\n", "proxy = 1\n", "x = \"\"\"\n\n\"\"\"\n\n"] {
        answer(text);
    }
}

#[test]
fn peers_have_an_id_and_an_address_of_their_own() {
    let peers = |own: &str, peers: &[(&str, &str)]| {
        let peer = |(id, address): &(&str, &str)| format!("[[peers]]\nid = {id}\naddress = \"{address}\"\n");
        format!("database = \"ehr\"\n{own}\n{}", peers.iter().map(peer).collect::<String>())
    };
    let mistake = |own: &str, list: &[(&str, &str)], says: &str| {
        one_mistake("database = \"ehr\"\n", &peers(own, list), &[says]);
    };
    let list = [("1", "10.0.0.1:6432"), ("2", "pgward-2.internal:6432"), ("3", "[::1]:6432")];
    let loaded = read(&with("database = \"ehr\"\n", &peers("peer_id = 1", &list))).unwrap();
    let read = |n: usize| (loaded.config.peers[n].id, &*loaded.config.peers[n].host, loaded.config.peers[n].port);
    assert_eq!([read(1), read(2)], [(2, "pgward-2.internal", 6432), (3, "::1", 6432)]);

    mistake("", &list[1..2], "this instance has no `peer_id`");
    mistake("peer_id = 0", &[], "`peer_id` of [proxy] cannot be 0");
    mistake("peer_id = 65536", &list, "expected a whole number from 1 to 65535");
    mistake("peer_id = 1", &[("2", "a:1"), ("2", "b:1")], "there are two peers `2`");
    mistake("peer_id = 1", &[("2", "a:1"), ("3", "A:1")], "the address A:1 is that of peer `2`");
    mistake("peer_id = 1", &[("70000", "a:1")], "`id` of [[peers]]");
    mistake("peer_id = 1", &[("2", "a")], "`a` has no port");
    mistake("peer_id = 1", &[("2", "[::1]")], "`[::1]` has no port");
    mistake("peer_id = 1", &[("2", "a:0")], "`0` is not a port");
    one_mistake(
        "database = \"ehr\"\n",
        "database = \"ehr\"\npeer_id = 1\n[[peers]]\naddress = \"a:1\"\n",
        &["has no `id`", "the `peer_id` of that instance"],
    );
}
