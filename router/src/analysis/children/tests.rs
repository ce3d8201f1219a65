#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write;

use pg_raw_parse::Node;

use super::children;

/// Each place of a query where the grammar takes an expression: `?`.
pub(crate) const QUERIES: &[&str] = &[
    "SELECT ?",
    "SELECT DISTINCT ON (?) 1",
    "SELECT 1 FROM app_log WHERE ? IS NULL",
    "SELECT 1 FROM app_log GROUP BY ?",
    "SELECT 1 FROM app_log GROUP BY ROLLUP (1, ?)",
    "SELECT 1 FROM app_log GROUP BY GROUPING SETS ((1), (?))",
    "SELECT 1 FROM app_log HAVING ? IS NULL",
    "SELECT 1 FROM app_log WINDOW w AS (PARTITION BY ?)",
    "SELECT count(*) OVER (ORDER BY ?) FROM app_log",
    "SELECT count(*) OVER (ROWS BETWEEN ? PRECEDING AND CURRENT ROW) FROM app_log",
    "SELECT count(*) OVER (ROWS BETWEEN CURRENT ROW AND ? FOLLOWING) FROM app_log",
    "SELECT 1 FROM app_log ORDER BY ? USING <",
    "SELECT 1 FROM app_log OFFSET ?",
    "SELECT 1 FROM app_log LIMIT ?",
    "SELECT 1 FROM app_log FETCH FIRST (?) ROWS ONLY",
    "SELECT 1 UNION SELECT ?",
    "SELECT 1 UNION SELECT 2 ORDER BY ?",
    "SELECT 1 UNION (SELECT 2 UNION SELECT 3 LIMIT ?)",
    "SELECT ? INTO app_log",
    "VALUES (1), (?)",
    "VALUES (1) LIMIT ?",
    "WITH w AS (SELECT ?) SELECT 1",
    "WITH w AS MATERIALIZED (SELECT ?) DELETE FROM app_log",
    "WITH RECURSIVE w AS (SELECT 1 UNION ALL SELECT ?) SELECT 1",
    "SELECT 1 FROM (SELECT ?) s",
    "SELECT 1 FROM app_log, LATERAL (SELECT ?) s",
    "SELECT 1 FROM (VALUES (?)) v",
    "SELECT 1 FROM app_log a JOIN app_log b ON ? IS NULL",
    "SELECT 1 FROM (app_log a LEFT JOIN app_log b ON ? IS NULL) j",
    "SELECT 1 FROM generate_series(1, ?)",
    "SELECT 1 FROM ROWS FROM (generate_series(1, 2), generate_series(1, ?)) WITH ORDINALITY",
    "SELECT 1 FROM app_log TABLESAMPLE bernoulli (?)",
    "SELECT 1 FROM app_log TABLESAMPLE system (1) REPEATABLE (?)",
    "SELECT 1 FROM XMLTABLE('/a' PASSING (?) COLUMNS x int)",
    "SELECT 1 FROM XMLTABLE((?) PASSING ('<a/>') COLUMNS x int)",
    "SELECT 1 FROM XMLTABLE('/a' PASSING ('<a/>') COLUMNS x int PATH (?))",
    "SELECT 1 FROM XMLTABLE('/a' PASSING ('<a/>') COLUMNS x int DEFAULT (?))",
    "SELECT 1 FROM XMLTABLE(XMLNAMESPACES(? AS n), '/a' PASSING ('<a/>') COLUMNS x int)",
    "SELECT 1 FROM JSON_TABLE(?, '$' COLUMNS (x int PATH '$'))",
    "SELECT 1 FROM JSON_TABLE('1', '$' PASSING ? AS p COLUMNS (x int PATH '$'))",
    "SELECT 1 FROM JSON_TABLE('1', '$' COLUMNS (x int PATH '$' DEFAULT ? ON EMPTY))",
    "SELECT 1 FROM JSON_TABLE('1', '$' COLUMNS (NESTED '$' COLUMNS (x int PATH '$' DEFAULT ? ON ERROR)))",
    "SELECT JSON_VALUE(?, '$')",
    "SELECT JSON_VALUE('1', '$' PASSING ? AS p)",
    "SELECT JSON_QUERY('1', '$' DEFAULT ? ON EMPTY)",
    "SELECT JSON_EXISTS('1', ?)",
    "SELECT JSON_OBJECT('a': ?)",
    "SELECT JSON_OBJECT(? VALUE 1)",
    "SELECT JSON_ARRAY(1, ?)",
    "SELECT JSON_ARRAY(SELECT ?)",
    "SELECT JSON_OBJECTAGG('a': ?)",
    "SELECT JSON_ARRAYAGG(1 ORDER BY ?)",
    "SELECT JSON_ARRAYAGG(1) FILTER (WHERE ? IS NULL)",
    "SELECT JSON_ARRAYAGG(1) OVER (PARTITION BY ?)",
    "SELECT JSON(?)",
    "SELECT JSON_SCALAR(?)",
    "SELECT JSON_SERIALIZE(?)",
    "SELECT ? IS JSON",
    "SELECT XMLELEMENT(NAME a, ?)",
    "SELECT XMLELEMENT(NAME a, XMLATTRIBUTES(? AS b))",
    "SELECT XMLFOREST(? AS b)",
    "SELECT XMLCONCAT(?)",
    "SELECT XMLPARSE(CONTENT ?)",
    "SELECT XMLPI(NAME a, ?)",
    "SELECT XMLROOT(?, VERSION '1')",
    "SELECT XMLROOT('<a/>', VERSION ?)",
    "SELECT XMLSERIALIZE(CONTENT ? AS text)",
    "SELECT XMLEXISTS('/a' PASSING ?)",
    "SELECT ? + 1",
    "SELECT ? IS DISTINCT FROM 1",
    "SELECT ? BETWEEN SYMMETRIC 1 AND 2",
    "SELECT 1 BETWEEN 1 AND ?",
    "SELECT 'a' LIKE 'b' ESCAPE ?",
    "SELECT 'a' SIMILAR TO ?",
    "SELECT ? IN (1)",
    "SELECT 1 IN (2, ?)",
    "SELECT 1 IN (SELECT ?)",
    "SELECT ? IN (SELECT 1)",
    "SELECT (1, ?) = ANY (SELECT 1, 2)",
    "SELECT 1 = ANY (ARRAY[?])",
    "SELECT EXISTS (SELECT ?)",
    "SELECT ARRAY(SELECT ?)",
    "SELECT ARRAY[[1], [?]]",
    "SELECT ROW(1, ?)",
    "SELECT (ROW(?)).f1",
    "SELECT ('{1}'::int[])[?]",
    "SELECT ('{1}'::int[])[1:?]",
    "SELECT NOT (true AND ? IS NULL)",
    "SELECT ? IS TRUE",
    "SELECT ? IS NULL",
    "SELECT NULLIF(1, ?)",
    "SELECT COALESCE(1, ?)",
    "SELECT GREATEST(1, ?)",
    "SELECT CASE ? WHEN 1 THEN 2 END",
    "SELECT CASE WHEN ? IS NULL THEN 2 END",
    "SELECT CASE WHEN true THEN ? END",
    "SELECT CASE WHEN true THEN 1 ELSE ? END",
    "SELECT CAST(? AS text)",
    "SELECT ?::text COLLATE \"C\"",
    "SELECT ? AT TIME ZONE 'UTC'",
    "SELECT EXTRACT(day FROM ?)",
    "SELECT SUBSTRING('a' FROM ?)",
    "SELECT TRIM(? FROM 'a')",
    "SELECT OVERLAY('a' PLACING 'b' FROM ?)",
    "SELECT POSITION('a' IN ?)",
    "SELECT (now(), ?) OVERLAPS (now(), now())",
    "SELECT make_interval(days => ?)",
    "SELECT concat(VARIADIC ARRAY[?])",
    "SELECT count(? ORDER BY 1)",
    "SELECT string_agg('a', 'b' ORDER BY ?)",
    "SELECT count(*) FILTER (WHERE ? IS NULL)",
    "SELECT percentile_cont(?) WITHIN GROUP (ORDER BY 1)",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ?)",
    "INSERT INTO app_log VALUES (?)",
    "INSERT INTO app_log (line[?]) VALUES (1)",
    "INSERT INTO app_log (line[1:?]) VALUES (1)",
    "INSERT INTO app_log (line.a[?]) SELECT 1",
    "INSERT INTO app_log SELECT ?",
    "INSERT INTO app_log VALUES (1) ON CONFLICT (lower(?)) DO NOTHING",
    "INSERT INTO app_log VALUES (1) ON CONFLICT (line) WHERE ? IS NULL DO NOTHING",
    "INSERT INTO app_log VALUES (1) ON CONFLICT (line) DO UPDATE SET line = ?",
    "INSERT INTO app_log VALUES (1) ON CONFLICT (line) DO UPDATE SET line[?] = 1",
    "INSERT INTO app_log VALUES (1) ON CONFLICT (line) DO UPDATE SET line = 1 WHERE ? IS NULL",
    "INSERT INTO app_log VALUES (1) RETURNING ?",
    "WITH w AS (SELECT ?) INSERT INTO app_log VALUES (1)",
    "INSERT INTO app_log WITH w AS (SELECT ?) VALUES (1)",
    "UPDATE app_log SET line = ?",
    "UPDATE app_log SET line[?] = 1",
    "UPDATE app_log SET line[?:2] = 1",
    "UPDATE app_log SET (a, b) = (1, ?)",
    "UPDATE app_log SET (a, b[?]) = ROW(1, 2)",
    "UPDATE app_log SET (a, b) = (SELECT 1, ?)",
    "UPDATE app_log SET line = 1 FROM (SELECT ?) s",
    "UPDATE app_log SET line = 1 WHERE ? IS NULL",
    "UPDATE app_log SET line = 1 RETURNING ?",
    "DELETE FROM app_log WHERE ? IS NULL",
    "DELETE FROM app_log USING (SELECT ?) s",
    "DELETE FROM app_log RETURNING ?",
    "MERGE INTO app_log USING (SELECT ?) s ON true WHEN MATCHED THEN DELETE",
    "MERGE INTO app_log USING app_log s ON ? IS NULL WHEN MATCHED THEN DELETE",
    "MERGE INTO app_log USING app_log s ON true WHEN MATCHED AND ? IS NULL THEN DO NOTHING",
    "MERGE INTO app_log USING app_log s ON true WHEN MATCHED THEN UPDATE SET line = ?",
    "MERGE INTO app_log USING app_log s ON true WHEN MATCHED THEN UPDATE SET line[?] = 1",
    "MERGE INTO app_log USING app_log s ON true WHEN NOT MATCHED THEN INSERT VALUES (?)",
    "MERGE INTO app_log USING app_log s ON true WHEN NOT MATCHED THEN INSERT (line[?]) VALUES (1)",
    "MERGE INTO app_log USING app_log s ON true WHEN NOT MATCHED BY SOURCE AND ? IS NULL THEN DELETE",
    "MERGE INTO app_log USING app_log s ON true WHEN MATCHED THEN DELETE RETURNING ?",
    "WITH w AS (SELECT ?) MERGE INTO app_log USING app_log s ON true WHEN MATCHED THEN DELETE",
    "COPY (SELECT ?) TO STDOUT",
    "COPY app_log FROM STDIN WHERE ? IS NULL",
    "DECLARE c CURSOR FOR SELECT ?",
    "EXPLAIN SELECT ?",
    "EXPLAIN ANALYZE INSERT INTO app_log (line[?]) VALUES (1)",
    "PREPARE p AS SELECT ?",
    "EXECUTE p (1, ?)",
    "CREATE TEMP TABLE t AS SELECT ?",
    "CREATE TEMP TABLE t AS EXECUTE p (?)",
];

/// Each place of a definition where the grammar takes an expression: `?`.
pub(crate) const DEFINITIONS: &[&str] = &[
    "CREATE TABLE app_log (a text DEFAULT ?)",
    "CREATE TEMP TABLE t (a text DEFAULT ?)",
    "CREATE TABLE app_log (a text CHECK (? IS NULL))",
    "CREATE TABLE app_log (a text, CHECK (? IS NULL))",
    "CREATE TABLE app_log (a text GENERATED ALWAYS AS (?) STORED)",
    "CREATE TABLE app_log (a text, EXCLUDE USING gist ((?) WITH =))",
    "CREATE TABLE app_log (a text, EXCLUDE USING gist (a WITH =) WHERE (? IS NULL))",
    "CREATE TABLE app_log (a text) PARTITION BY RANGE ((?))",
    "CREATE TABLE app_log PARTITION OF pgbench_accounts FOR VALUES FROM (?) TO (1)",
    "CREATE TABLE app_log PARTITION OF pgbench_accounts FOR VALUES FROM (1) TO (?)",
    "CREATE TABLE app_log PARTITION OF pgbench_accounts FOR VALUES IN (?)",
    "CREATE TABLE app_log PARTITION OF pgbench_accounts (a DEFAULT ?) DEFAULT",
    "CREATE TABLE app_log OF mood (a WITH OPTIONS DEFAULT ?)",
    "ALTER TABLE app_log ADD COLUMN a text DEFAULT ?",
    "ALTER TABLE app_log ADD COLUMN a text CHECK (? IS NULL)",
    "ALTER TABLE app_log ADD COLUMN a text GENERATED ALWAYS AS (?) VIRTUAL",
    "ALTER TABLE app_log ALTER COLUMN a SET DEFAULT ?",
    "ALTER TABLE app_log ALTER COLUMN a SET EXPRESSION AS (?)",
    "ALTER TABLE app_log ALTER COLUMN a TYPE text USING ?",
    "ALTER TABLE app_log ADD CONSTRAINT c CHECK (? IS NULL) NOT VALID",
    "ALTER TABLE app_log ADD EXCLUDE USING gist ((?) WITH =)",
    "ALTER TABLE app_log ATTACH PARTITION pgbench_accounts FOR VALUES IN (?)",
    "CREATE INDEX ON app_log ((?))",
    "CREATE INDEX ON app_log (line) WHERE ? IS NULL",
    "CREATE POLICY p ON app_log USING (? IS NULL)",
    "CREATE POLICY p ON app_log WITH CHECK (? IS NULL)",
    "ALTER POLICY p ON app_log USING (? IS NULL)",
    "ALTER POLICY p ON app_log WITH CHECK (? IS NULL)",
    "CREATE TRIGGER t BEFORE INSERT ON app_log FOR EACH ROW WHEN (? IS NULL) EXECUTE FUNCTION app_writes()",
    "CREATE VIEW app_log AS SELECT ?",
    "CREATE TEMP VIEW v AS SELECT 1 WHERE ? IS NULL",
    "CREATE MATERIALIZED VIEW app_log AS SELECT ?",
];

/// Those that are refused unless undeclared tables are local.
pub(crate) const LOCAL_DEFINITIONS: &[&str] = &[
    "CREATE DOMAIN d AS text CHECK (? IS NULL)",
    "CREATE DOMAIN d AS text DEFAULT ?",
    "ALTER DOMAIN d ADD CHECK (? IS NULL)",
    "ALTER DOMAIN d SET DEFAULT ?",
    "CREATE STATISTICS s ON (?), line FROM app_log",
    "CALL p(?)",
];

/// How often each kind of node is in a tree, by what the bindings print of it: all fields of all nodes.
fn printed(tree: &str) -> BTreeMap<String, usize> {
    let (mut kinds, mut quoted, mut escaped, mut word) = (BTreeMap::new(), false, false, String::new());
    for c in tree.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' => *kinds.entry(std::mem::take(&mut word)).or_default() += 1,
            c if c.is_alphanumeric() || c == '_' => word.push(c),
            ' ' => {}
            _ => word.clear(),
        }
    }
    kinds
}

/// The kind of a node: the first word that it is printed as.
fn kind(node: Node<'_>) -> String {
    struct Word(String);
    impl Write for Word {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let end = text.find('(').unwrap_or(text.len());
            self.0.push_str(&text[..end]);
            if end < text.len() { Err(std::fmt::Error) } else { Ok(()) }
        }
    }
    let mut word = Word(String::new());
    let _ = write!(word, "{node:?}");
    word.0
}

fn walked(root: Node<'_>) -> BTreeMap<String, usize> {
    let (mut kinds, mut stack) = (BTreeMap::new(), vec![root]);
    while let Some(node) = stack.pop() {
        assert!(children(node, &mut stack), "{node:?}");
        if !matches!(node, Node::NodeList(_)) {
            *kinds.entry(kind(node)).or_default() += 1;
        }
    }
    kinds
}

fn nothing_is_left_out(sql: &str) {
    let Ok(tree) = pg_raw_parse::parse(sql) else { return };
    // The bindings do not know the nodes of foreign tables; what GRANT names, and CREATE STATISTICS where it names no
    // table, they cannot print.
    let printable = |node| match node {
        Node::Invalid(_) | Node::GrantStmt(_) => false,
        Node::CreateStatsStmt(_) => std::panic::catch_unwind(|| format!("{node:?}")).is_ok(),
        _ => true,
    };
    for raw in tree.iter().filter(|raw| printable(raw.stmt())) {
        assert_eq!(walked(raw.stmt()), printed(&format!("{:?}", raw.stmt())), "{sql}");
    }
}

#[test]
fn no_field_of_any_node_is_left_out() {
    for form in QUERIES.iter().chain(DEFINITIONS).chain(LOCAL_DEFINITIONS) {
        let sql = form.replace('?', "f(1)");
        pg_raw_parse::parse(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        nothing_is_left_out(&sql);
    }
    for sql in include_str!("../corpus.txt").lines() {
        nothing_is_left_out(sql);
    }
}

/// The same for PostgreSQL's own regression tests, where the folder of their files is given.
#[test]
fn no_field_is_left_out_of_regression_tests() {
    let Some(folder) = std::env::var_os("PGWARD_REGRESS_SQL") else { return };
    for file in std::fs::read_dir(folder).unwrap() {
        let Ok(text) = std::fs::read_to_string(file.unwrap().path()) else { continue };
        text.split_inclusive(";\n").for_each(nothing_is_left_out);
    }
}
