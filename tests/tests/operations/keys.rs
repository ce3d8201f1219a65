//! Key columns that servers compare otherwise than the directory does.

use pgward_tests::{Options, answers, sqlstate};

use crate::reload::reload;
use crate::start;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_whose_keys_compare_otherwise_are_refused() {
    let pgward = start(Options { shards: 2, replicas: 0, patients: 80, ..Options::default() }).await;
    let server = pgward.on_server("us-east-patients/primary").await;
    // Collations that are not deterministic are ICU's, which not every build of PostgreSQL has.
    let folding = "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    let icu = server.batch_execute(&format!("BEGIN; {folding}; ROLLBACK")).await.is_ok();
    server.batch_execute("ROLLBACK").await.unwrap();
    let mut tables = vec![
        ("fine", "id text PRIMARY KEY"),
        ("fine_too", "id varchar PRIMARY KEY"),
        ("cut", "id varchar(3) PRIMARY KEY"),
        ("domain_cut", "id short PRIMARY KEY"),
        ("padded", "id char(3) PRIMARY KEY"),
        ("typed", "id bigint PRIMARY KEY"),
        ("folded", "id text COLLATE folding PRIMARY KEY"),
        ("folded_index", "id text"),
        ("elsewhere", "id text PRIMARY KEY"),
    ];
    tables.retain(|(name, _)| icu || !name.starts_with("folded"));
    for shard in ["us-east", "us-west"] {
        let server = pgward.on_server(&format!("{shard}-patients/primary")).await;
        let mut sql = "CREATE DOMAIN short AS varchar(3);".to_owned();
        if icu {
            sql += &format!("{folding};");
        }
        for (name, key) in &tables {
            let key = if *name == "elsewhere" && shard == "us-west" { "id varchar(3) PRIMARY KEY" } else { *key };
            sql +=
                &format!("CREATE TABLE key_{name} ({key}, region text, note text); GRANT ALL ON key_{name} TO PUBLIC;");
        }
        if icu {
            sql += "CREATE UNIQUE INDEX ON key_folded_index (id COLLATE folding);";
        }
        server.batch_execute(&sql).await.unwrap();
    }
    let mut toml = std::fs::read_to_string(pgward.files().config()).unwrap();
    toml = toml.replace("key_type = \"uuid\"", "key_type = \"text\"");
    for (name, _) in &tables {
        toml += &format!(
            "\n[[tables]]\nname = \"key_{name}\"\nkind = \"patient\"\nkey = \"id\"\nregion_column = \"region\"\n"
        );
    }
    let (accepted, said) = reload(&pgward, &toml);
    assert!(accepted, "{said}");

    let client = pgward.app().await;
    let east = pgward.on_server("us-east-patients/primary").await;
    for (name, _) in &tables {
        let insert = format!("INSERT INTO key_{name} (id, region) VALUES ('{name}', 'us-east')");
        let read = format!("SELECT id FROM key_{name} WHERE id = '{name}'");
        if name.starts_with("fine") {
            client.simple_query(&insert).await.unwrap();
            assert_eq!(answers(&client, &read).await, *name);
            continue;
        }
        for sql in [insert, read, format!("DELETE FROM key_{name} WHERE id = '{name}'")] {
            println!("{sql}");
            assert_eq!(sqlstate(client.simple_query(&sql).await), "PW007");
        }
        assert_eq!(answers(&east, &format!("SELECT count(*) FROM key_{name}")).await, "0");
        let known = client.simple_query(&format!("SELECT id FROM key_fine WHERE id = '{name}'")).await;
        assert_eq!(sqlstate(known), "PW004", "{name} registered a patient");
    }

    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pgward-under-test"))
        .args(["check", "--live"])
        .arg(pgward.files().config())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success(), "{said}");
    for (name, _) in &tables {
        let reported = said.contains(&format!("public.key_{name}.id "));
        assert_eq!(reported, !name.starts_with("fine"), "{name}: {said}");
    }
}
