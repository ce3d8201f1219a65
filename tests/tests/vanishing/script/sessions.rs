//! What a session leaves on its server: cursors, settings, what keeps the server, statements that go on.

use bytes::BytesMut;
use pgward_wire::frontend;

use super::messages::{bind, execute, parse};
use super::{Author, UNCOMMITTED};

impl Author {
    pub(super) fn cursors(&mut self) {
        self.query("BEGIN");
        let read = self.read();
        self.query(&read);
        let hold = if self.chance.one_in(3) { "WITH HOLD" } else { "" };
        self.query(&format!("DECLARE c CURSOR {hold} FOR SELECT repeat('x', 100) FROM generate_series(1, 5000)"));
        self.query("FETCH 100 FROM c");
        let mut part = BytesMut::new();
        parse(&mut part, "", "SELECT repeat('y', 100) FROM generate_series(1, 5000)");
        bind(&mut part, "portal", "", &[]);
        for _ in 0..self.chance.below(20) {
            execute(&mut part, "portal", 7);
        }
        frontend::put_sync(&mut part);
        self.script.push(part);
        if self.chance.one_in(2) {
            self.query("COMMIT");
            self.query("FETCH 100 FROM c");
        }
    }

    /// Those that would harm whoever got the server with them.
    pub(super) fn settings(&mut self) {
        const HARM: [&str; 16] = [
            "SET search_path = pg_catalog",
            "SET statement_timeout = '1ms'",
            "SET default_transaction_read_only = on",
            "SET application_name = 'somebody'",
            "SELECT set_config('lock_timeout', '1ms', false)",
            "SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'German'",
            "SET default_transaction_isolation = 'serializable'",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET pgward.priority = 'low'",
            "SAVEPOINT here",
            "ROLLBACK TO here",
            "RESET search_path",
            "RESET statement_timeout",
            "RESET ALL",
            "DISCARD ALL",
            "SET ROLE pg_monitor",
        ];
        let in_transaction = self.chance.one_in(3);
        if in_transaction {
            self.query("BEGIN");
        }
        for _ in 0..=self.chance.below(8) {
            let sql = *self.chance.choose(&HARM);
            self.query(sql);
            let read = self.read();
            self.query(&read);
        }
        if in_transaction {
            let end = *self.chance.choose(&["COMMIT", "ROLLBACK"]);
            self.query(end);
        }
    }

    pub(super) fn keeping(&mut self) {
        const KEEPING: [&str; 7] = [
            "LISTEN somewhere",
            "CREATE TEMP TABLE pgbench_mine AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)",
            "PREPARE mine AS SELECT 1",
            "EXECUTE mine",
            "SELECT pg_advisory_lock(8)",
            "SELECT pg_try_advisory_lock_shared(9)",
            "NOTIFY somewhere, 'something'",
        ];
        let in_transaction = self.chance.one_in(3);
        if in_transaction {
            self.query("BEGIN");
        }
        for _ in 0..=self.chance.below(4) {
            let sql = *self.chance.choose(&KEEPING);
            self.query(sql);
        }
        let read = self.read();
        self.query(&read);
    }

    /// Something to be cancelled.
    pub(super) fn sleep(&mut self) {
        let (id, length) = (self.patient, self.chance.below(200));
        if self.chance.one_in(2) {
            self.query("BEGIN");
            let sql = self.insert(UNCOMMITTED);
            self.query(&sql);
        }
        self.query(&format!("SELECT pg_sleep({length} / 1000.0) FROM patients WHERE id = '{id}'"));
    }
}
