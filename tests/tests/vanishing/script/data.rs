//! COPY in both directions, large values, many rows.

use bytes::{BufMut, BytesMut};
use pgward_wire::frontend;

use super::messages::{bind, execute, message, parse, put_value};
use super::{Author, COMMITTED, UNCOMMITTED};

const LARGE: usize = 5 * 1024 * 1024;

impl Author {
    pub(super) fn copy_in(&mut self) {
        let given_up = self.chance.one_in(2);
        let substance = if given_up { UNCOMMITTED } else { COMMITTED };
        let rows = self.chance.of_any_size(9);
        let (format, data) = match self.chance.below(3) {
            0 => ("text", self.lines(rows, substance, '\t')),
            1 => ("csv", self.lines(rows, substance, ',')),
            _ => ("binary", self.binary_rows(rows, substance)),
        };
        let opened = self.chance.one_in(3);
        if opened {
            self.query("BEGIN");
        }
        self.query(&format!("COPY allergies (patient_id, substance, reaction, severity) FROM STDIN (FORMAT {format})"));
        let mut part = BytesMut::new();
        let piece = 1 + self.chance.of_any_size(12);
        for piece in data.chunks(piece) {
            message(&mut part, b'd', piece);
        }
        if given_up {
            frontend::put_copy_fail(&mut part, "given up");
        } else {
            message(&mut part, b'c', b"");
        }
        self.script.push(part);
        if opened {
            self.query("COMMIT");
        }
        let read = self.read();
        self.query(&read);
    }

    fn lines(&self, rows: usize, substance: &str, separator: char) -> BytesMut {
        let row = [&self.patient.to_string(), substance, "Hives", "mild"].join(&separator.to_string()) + "\n";
        row.repeat(rows).as_bytes().into()
    }

    fn binary_rows(&self, rows: usize, substance: &str) -> BytesMut {
        let mut data = BytesMut::from(&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..]);
        for _ in 0..rows {
            data.put_i16(4);
            for value in [self.patient.as_bytes(), substance.as_bytes(), b"Hives", b"mild"] {
                put_value(&mut data, value);
            }
        }
        data.put_i16(-1);
        data
    }

    pub(super) fn copy_out(&mut self) {
        let format = *self.chance.choose(&["text", "csv", "binary"]);
        let rows = self.chance.of_any_size(16);
        let many = format!("SELECT n, repeat('x', 50) FROM generate_series(1, {rows}) n");
        let mine = format!("SELECT * FROM allergies WHERE patient_id = '{}'", self.patient);
        let source = if self.chance.one_in(2) { many } else { mine };
        self.query(&format!("COPY ({source}) TO STDOUT (FORMAT {format})"));
        self.query("SELECT 1");
    }

    pub(super) fn large(&mut self) {
        let text = vec![b'v'; self.chance.below(LARGE)];
        let mut part = BytesMut::new();
        if self.chance.one_in(2) {
            parse(&mut part, "", "SELECT length($1::text), $1");
            bind(&mut part, "", "", &[&text]);
        } else {
            self.query("BEGIN");
            let sql = format!(
                "INSERT INTO allergies (patient_id, substance, reaction, severity) \
                 VALUES ($1, '{UNCOMMITTED}', $2, 'mild')"
            );
            parse(&mut part, "", &sql);
            bind(&mut part, "", "", &[self.patient.to_string().as_bytes(), &text]);
        }
        execute(&mut part, "", 0);
        frontend::put_sync(&mut part);
        self.script.push(part);
    }

    pub(super) fn many_rows(&mut self) {
        let (rows, length) = (self.chance.of_any_size(15), self.chance.of_any_size(9));
        let (id, large) = (self.patient, self.chance.below(LARGE));
        self.query(&format!(
            "SELECT repeat('r', {length}), p.family_name FROM generate_series(1, {rows}), patients p WHERE p.id = '{id}'"
        ));
        self.query(&format!("SELECT repeat('x', {large}) FROM patients WHERE id = '{id}'"));
    }
}
