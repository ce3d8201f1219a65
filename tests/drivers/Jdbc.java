// PostgreSQL's JDBC driver. What the steps are: README.md beside this file. Run as one source file.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.math.BigDecimal;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.time.OffsetDateTime;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public class Jdbc {
    static final String NAME = "jdbc";
    static final String OBSERVE = "INSERT INTO observations (patient_id, loinc, name, value, unit, observed_at)"
        + " VALUES (?, ?, 'Step', ?, 'no', '2026-01-01 00:00:00Z')";
    static final String OBSERVED =
        "SELECT count(*), sum(value)::int FROM observations WHERE patient_id = ? AND loinc = ?";

    interface Work { void run() throws Exception; }

    final String url;
    final String user;
    final String password;
    final UUID patient;
    final Connection conn;

    Jdbc(String given, String patient) throws SQLException {
        URI uri = URI.create(given);
        String[] who = uri.getUserInfo().split(":");
        url = "jdbc:postgresql://" + uri.getHost() + ":" + uri.getPort() + uri.getPath();
        user = who[0];
        password = who[1];
        this.patient = UUID.fromString(patient);
        conn = connect("");
    }

    Connection connect(String options) throws SQLException {
        return DriverManager.getConnection(url + "?" + options, user, password);
    }

    static void say(String step, Object... results) {
        StringBuilder line = new StringBuilder(step + ":");
        for (Object result : results) line.append(' ').append(result);
        System.out.println(line);
    }

    static String sqlstate(Work work) throws Exception {
        try {
            work.run();
            return "no error";
        } catch (BatchUpdateException error) {
            return error.getSQLState() + " " + Arrays.toString(error.getUpdateCounts());
        } catch (SQLException error) {
            return error.getSQLState();
        }
    }

    PreparedStatement with(Connection conn, String sql, Object... values) throws SQLException {
        PreparedStatement statement = conn.prepareStatement(sql);
        for (int n = 0; n < values.length; n++) statement.setObject(n + 1, values[n]);
        return statement;
    }

    // The only row, its columns between bars.
    String row(Connection conn, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = with(conn, sql, values); ResultSet rows = statement.executeQuery()) {
            rows.next();
            List<String> columns = new ArrayList<>();
            for (int n = 1; n <= rows.getMetaData().getColumnCount(); n++) columns.add(rows.getString(n));
            return String.join("|", columns);
        }
    }

    int change(String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = with(conn, sql, values)) {
            return statement.executeUpdate();
        }
    }

    void inTransaction(boolean commit, Work work) throws Exception {
        conn.setAutoCommit(false);
        try {
            work.run();
        } finally {
            if (commit) conn.commit(); else conn.rollback();
            conn.setAutoCommit(true);
        }
    }

    void login() throws Exception {
        say("login", row(conn, "SELECT current_database(), current_user"), conn.isValid(5));
        say("wrong-password", sqlstate(() -> DriverManager.getConnection(url, user, "wrong").close()));
        DatabaseMetaData data = conn.getMetaData();
        try (ResultSet keys = data.getPrimaryKeys(null, "public", "encounters")) {
            while (keys.next()) say("primary-key", keys.getString("COLUMN_NAME"), keys.getInt("KEY_SEQ"));
        }
        try (ResultSet columns = data.getColumns(null, "public", "allergies", "%")) {
            while (columns.next()) say("column", columns.getString("COLUMN_NAME"), columns.getString("TYPE_NAME"));
        }
    }

    void parameters() throws Exception {
        say("parameters", row(conn, "SELECT region FROM patients WHERE id = ? AND region = ?", patient, "us-east"));
        say("literal", row(conn, "SELECT region FROM patients WHERE id = '" + patient + "'"));
        try (Connection simple = connect("preferQueryMode=simple")) {
            say("simple", row(simple, "SELECT region FROM patients WHERE id = ?", patient));
        }
    }

    void types() throws Exception {
        byte[] payload = new byte[256];
        for (int n = 0; n < 256; n++) payload[n] = (byte) n;
        inTransaction(false, () -> {
            Array tags = conn.createArrayOf("text", new String[] {"", "a,b", "\"{}\\", null, "ä"});
            change("INSERT INTO pgbench_history (driver, id, payload, tags, key, doc, seen, amount, note)"
                + " VALUES (?, 1, ?, ?, ?, ?::jsonb, ?, ?, ?)", NAME, payload, tags, patient,
                "{\"a\": [1, null, \"ü\"]}", OffsetDateTime.parse("2026-02-28T23:59:59.999999Z"),
                new BigDecimal("12345678901234567890.123456789"), null);
            String query = "SELECT payload, tags, key, doc, seen, amount, note FROM pgbench_history WHERE driver = ?";
            // By the fifth execution the driver has a prepared statement, and asks for binary values.
            for (int n = 0; n < 6; n++) {
                try (PreparedStatement statement = with(conn, query, NAME); ResultSet got = statement.executeQuery()) {
                    got.next();
                    say("types", Arrays.equals(got.getBytes(1), payload),
                        Arrays.toString((Object[]) got.getArray(2).getArray()), got.getObject(3).equals(patient),
                        got.getString(4), got.getObject(5, OffsetDateTime.class), got.getBigDecimal(6), got.getString(7));
                }
            }
        });
    }

    void prepared() throws Exception {
        try (PreparedStatement observe = conn.prepareStatement(OBSERVE);
                PreparedStatement code = conn.prepareStatement("SELECT title FROM icd10_codes WHERE code = ?")) {
            for (int n = 0; n < 100; n++) {
                final int value = n;
                inTransaction(true, () -> {
                    observe.setObject(1, patient);
                    observe.setString(2, NAME);
                    observe.setBigDecimal(3, new BigDecimal(value));
                    observe.executeUpdate();
                    code.setString(1, "I10");
                    code.executeQuery().close();
                });
            }
        }
        inTransaction(true, () -> say("prepared", row(conn, OBSERVED, patient, NAME)));
    }

    void batch(Connection conn, String step) throws Exception {
        conn.setAutoCommit(false);
        try (PreparedStatement observe = conn.prepareStatement(OBSERVE)) {
            for (int n = 0; n < 300; n++) {
                observe.setObject(1, patient);
                observe.setString(2, NAME);
                observe.setInt(3, n);
                observe.addBatch();
            }
            say(step, Arrays.stream(observe.executeBatch()).filter(count -> count != 0).count());
            say(step, row(conn, OBSERVED, patient, NAME));
            for (int value : new int[] {1, 0, 2}) {
                observe.setObject(1, patient);
                observe.setString(2, value == 0 ? null : NAME);
                observe.setInt(3, value);
                observe.addBatch();
            }
            say(step + "-error", sqlstate(observe::executeBatch));
            say(step + "-failed", sqlstate(() -> row(conn, "SELECT 1")));
        }
        conn.rollback();
        conn.setAutoCommit(true);
    }

    void transactions() throws Exception {
        String count = "SELECT count(*) FROM allergies WHERE patient_id = ? AND substance = ?";
        String delete = "DELETE FROM allergies WHERE patient_id = ? AND substance = ?";
        inTransaction(true, () -> change("INSERT INTO allergies (patient_id, substance, reaction, severity)"
            + " VALUES (?, ?, 'Hives', 'mild')", patient, NAME));
        inTransaction(true, () -> say("commit", row(conn, count, patient, NAME)));
        inTransaction(false, () -> change(delete, patient, NAME));
        inTransaction(true, () -> {
            say("rollback", row(conn, count, patient, NAME));
            Savepoint here = conn.setSavepoint();
            change(delete, patient, NAME);
            conn.rollback(here);
            say("savepoint", row(conn, count, patient, NAME));
        });
        conn.setReadOnly(true);
        inTransaction(false, () -> say("read-only", sqlstate(() -> change(delete, patient, NAME))));
        conn.setReadOnly(false);
        conn.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        inTransaction(true, () -> say("serializable", row(conn, "SHOW transaction_isolation")));
        conn.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        say("delete", change(delete, patient, NAME));
        try (PreparedStatement returning = conn.prepareStatement("INSERT INTO allergies (patient_id, substance,"
                + " reaction, severity) VALUES (?, ?, 'x', 'mild')", new String[] {"substance"})) {
            returning.setObject(1, patient);
            returning.setString(2, NAME);
            returning.executeUpdate();
            ResultSet keys = returning.getGeneratedKeys();
            keys.next();
            say("generated-keys", keys.getString(1), change(delete, patient, NAME));
        }
    }

    void errors() throws Exception {
        say("error", sqlstate(() -> row(conn, "SELECT 1 / ?", 0)));
        inTransaction(false, () -> {
            say("error-in-transaction", sqlstate(() -> change("INSERT INTO allergies (patient_id, substance,"
                + " reaction, severity) VALUES (?, 'x', 'x', 'none')", patient)));
            say("failed-transaction", sqlstate(() -> row(conn, "SELECT 1")));
        });
        say("after-error", row(conn, "SELECT 'usable'"));
        try (Connection saving = connect("autosave=always")) {
            saving.setAutoCommit(false);
            say("autosave", sqlstate(() -> row(saving, "SELECT 1 / ?", 0)), row(saving, "SELECT 'usable'"));
            saving.rollback();
        }
    }

    void cancel() throws Exception {
        Statement statement = conn.createStatement();
        CountDownLatch ended = new CountDownLatch(1);
        Thread asking = new Thread(() -> {
            try {
                // Again and again: a request that comes before the statement has begun cancels nothing.
                while (!ended.await(500, TimeUnit.MILLISECONDS)) statement.cancel();
            } catch (InterruptedException | SQLException error) {
                say("cancel-request", error);
            }
        });
        asking.start();
        String state = sqlstate(() -> statement.executeQuery("SELECT pg_sleep(60)"));
        ended.countDown();
        asking.join();
        say("cancel", state, row(conn, "SELECT 'usable'"));
        statement.setQueryTimeout(1);
        say("query-timeout", sqlstate(() -> statement.executeQuery("SELECT pg_sleep(60)")), row(conn, "SELECT 'usable'"));
        statement.close();
    }

    void copy() throws Exception {
        CopyManager copies = conn.unwrap(PGConnection.class).getCopyAPI();
        inTransaction(false, () -> {
            StringBuilder rows = new StringBuilder();
            for (int n = 0; n < 1000; n++) {
                rows.append(patient).append("\tcopy\ttab\\tand\\\\\t").append(n).append("\tno\t2026-01-01 00:00:00Z\n");
            }
            InputStream in = new ByteArrayInputStream(rows.toString().getBytes(StandardCharsets.UTF_8));
            long taken = copies.copyIn(
                "COPY observations (patient_id, loinc, name, value, unit, observed_at) FROM STDIN", in);
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            copies.copyOut("COPY (SELECT name, value FROM observations WHERE patient_id = '" + patient
                + "' AND loinc = 'copy' ORDER BY id) TO STDOUT", out);
            say("copy", taken, out.toString().hashCode());
        });
    }

    void large() throws Exception {
        String text = "0123456789abcdef".repeat(327680);
        byte[] payload = text.getBytes(StandardCharsets.UTF_8);
        say("large-text", row(conn, "SELECT ?::text", text).equals(text));
        inTransaction(false, () -> {
            change("INSERT INTO pgbench_history (driver, id, payload) VALUES (?, 1, ?)", NAME, payload);
            try (PreparedStatement select = with(conn, "SELECT payload FROM pgbench_history WHERE driver = ?", NAME);
                    ResultSet got = select.executeQuery()) {
                got.next();
                say("large-bytea", Arrays.equals(got.getBytes(1), payload));
            }
        });
    }

    void cursors() throws Exception {
        String query = "SELECT value::int FROM observations WHERE patient_id = ? AND loinc = ?";
        inTransaction(true, () -> {
            // A portal that is fetched from in pieces.
            try (PreparedStatement select = with(conn, query, patient, NAME)) {
                select.setFetchSize(7);
                int sum = 0;
                ResultSet rows = select.executeQuery();
                while (rows.next()) sum += rows.getInt(1);
                say("cursor", sum);
                ResultSet some = select.executeQuery();
                some.next();
                say("closed-early", row(conn, "SELECT 'usable'"));
            }
        });
    }

    void fifty() throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(50);
        CyclicBarrier together = new CyclicBarrier(50);
        List<Future<String>> answers = new ArrayList<>();
        for (int n = 0; n < 50; n++) {
            answers.add(threads.submit(() -> {
                try (Connection one = connect("")) {
                    together.await();
                    one.setAutoCommit(false);
                    String region = row(one, "SELECT region FROM patients WHERE id = ?", patient);
                    one.commit();
                    return region;
                }
            }));
        }
        int right = 0;
        for (Future<String> answer : answers) if (answer.get().equals("us-east")) right++;
        threads.shutdown();
        say("fifty", right);
    }

    public static void main(String[] args) throws Exception {
        Jdbc steps = new Jdbc(args[0], args[1]);
        steps.login();
        steps.parameters();
        steps.types();
        steps.prepared();
        steps.batch(steps.conn, "batch");
        try (Connection rewriting = steps.connect("reWriteBatchedInserts=true")) {
            steps.batch(rewriting, "rewritten-batch");
        }
        steps.transactions();
        steps.errors();
        steps.cancel();
        steps.copy();
        steps.large();
        steps.cursors();
        steps.fifty();
        say("delete", steps.change("DELETE FROM observations WHERE patient_id = ? AND loinc = ?", steps.patient, NAME));
        steps.conn.close();
        say("end");
    }
}
