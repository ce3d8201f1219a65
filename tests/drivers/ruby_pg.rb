# Ruby's pg, over libpq. What the steps are: README.md beside this file.

require 'digest'

begin
  require 'pg'
rescue LoadError
  abort "Ruby's pg is not installed: scripts/install-drivers does that on Debian and Ubuntu; elsewhere, gem install pg"
end

URL, PATIENT = ARGV
NAME = 'ruby_pg'.freeze
MINE = [PATIENT, NAME].freeze
OBSERVE = <<~SQL.freeze
  INSERT INTO observations (patient_id, loinc, name, value, unit, observed_at)
  VALUES ($1, $2, 'Step', $3, 'no', '2026-01-01 00:00:00Z')
SQL
OBSERVED = 'SELECT count(*), sum(value)::int FROM observations WHERE patient_id = $1 AND loinc = $2'.freeze

def say(step, *results)
  puts ["#{step}:", *results.map { |result| result.is_a?(String) ? result : result.inspect }].join(' ')
  $stdout.flush
end

def sqlstate
  yield
  'no error'
rescue PG::Error => e
  e.result&.error_field(PG::Result::PG_DIAG_SQLSTATE) || e.class.name
end

class RolledBack < StandardError; end

def rolled_back(conn)
  conn.transaction do
    yield
    raise RolledBack
  end
rescue RolledBack
  nil
end

def row(conn, sql, values = [])
  conn.exec_params(sql, values).values.first
end

def login(conn)
  say('login', *row(conn, 'SELECT current_database(), current_user'))
  begin
    PG.connect(URL.sub(/:[^:@]*@/, ':wrong@'))
  rescue PG::ConnectionBad => e
    say('wrong-password', e.message.include?('password authentication failed'))
  end
end

def parameters(conn)
  query = 'SELECT region FROM patients WHERE id = $1 AND region = $2'
  say('parameters', *row(conn, query, [PATIENT, 'us-east']))
  say('literal', *conn.exec("SELECT region FROM patients WHERE id = '#{PATIENT}'").values)
  binary = [{ value: [PATIENT.delete('-')].pack('H*'), format: 1, type: 2950 }, 'us-east']
  say('binary', *conn.exec_params(query, binary, 1).values)
end

def types(conn)
  payload = (0..255).to_a.pack('C*')
  rolled_back(conn) do
    values = [NAME, { value: payload, format: 1 }, '{"",NULL,"a,b","{}\\\\\\""}', PATIENT, '{"a": [1, null, "ü"]}',
              '2026-02-28 23:59:59.999999Z', '12345678901234567890.123456789', nil]
    conn.exec_params(<<~SQL, values)
      INSERT INTO pgbench_history (driver, id, payload, tags, key, doc, seen, amount, note)
      VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8)
    SQL
    query = 'SELECT tags, key, doc, seen, amount, note FROM pgbench_history WHERE driver = $1'
    tags, key, *rest = row(conn, query, [NAME])
    say('types', tags, key == PATIENT, *rest)
    back = conn.exec_params('SELECT payload FROM pgbench_history WHERE driver = $1', [NAME], 1).getvalue(0, 0)
    say('payload', back == payload)
  end
end

def prepared(conn)
  conn.prepare('observe', OBSERVE)
  conn.prepare('code', 'SELECT title FROM icd10_codes WHERE code = $1')
  100.times do |n|
    conn.transaction do
      conn.exec_prepared('observe', [PATIENT, NAME, n])
      conn.exec_prepared('code', ['I10'])
    end
  end
  conn.transaction { say('prepared', *row(conn, OBSERVED, MINE)) }
  described = conn.describe_prepared('observe')
  say('described', Array.new(described.nparams) { |n| described.paramtype(n) })
  say('prepared-again', sqlstate { conn.prepare('observe', OBSERVE) })
  conn.exec('DEALLOCATE observe')
  say('deallocated', sqlstate { conn.exec_prepared('observe', [PATIENT, NAME, 0]) })
end

def results_of_pipeline(conn)
  results = []
  loop do
    result = conn.get_result
    # Between two queries there is a nil; after the last, too, but then a sync has come.
    next if result.nil?

    return results if result.result_status == PG::PGRES_PIPELINE_SYNC

    results << (result.error_field(PG::Result::PG_DIAG_SQLSTATE) || result.values.first || result.cmd_status)
    results[-1] = 'aborted' if result.result_status == PG::PGRES_PIPELINE_ABORTED
  end
end

def pipeline(conn)
  conn.enter_pipeline_mode
  conn.send_query_params('BEGIN', [])
  20.times { |n| conn.send_query_params(OBSERVE, [PATIENT, NAME, n]) }
  conn.send_query_params(OBSERVED, MINE)
  conn.send_query_params('ROLLBACK', [])
  conn.pipeline_sync
  say('pipeline', results_of_pipeline(conn))
  conn.send_query_params('SELECT 1 / $1::int', [1])
  conn.send_query_params('SELECT 1 / $1::int', [0])
  conn.send_query_params('SELECT 3', [])
  conn.pipeline_sync
  conn.send_query_params("SELECT 'usable'", [])
  conn.pipeline_sync
  say('pipeline-error', results_of_pipeline(conn), results_of_pipeline(conn))
  conn.exit_pipeline_mode
end

def transactions(conn)
  count = 'SELECT count(*) FROM allergies WHERE patient_id = $1 AND substance = $2'
  delete = 'DELETE FROM allergies WHERE patient_id = $1 AND substance = $2'
  conn.transaction do
    conn.exec_params(<<~SQL, MINE)
      INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, $2, 'Hives', 'mild')
    SQL
  end
  conn.transaction { say('commit', *row(conn, count, MINE)) }
  rolled_back(conn) { conn.exec_params(delete, MINE) }
  conn.transaction do
    say('rollback', *row(conn, count, MINE))
    conn.exec('SAVEPOINT here')
    conn.exec_params(delete, MINE)
    conn.exec('ROLLBACK TO here')
    say('savepoint', *row(conn, count, MINE))
    say('status', conn.transaction_status == PG::PQTRANS_INTRANS)
  end
  say('status', conn.transaction_status == PG::PQTRANS_IDLE)
  say('delete', conn.exec_params(delete, MINE).cmd_tuples)
end

def errors(conn)
  say('error', sqlstate { row(conn, 'SELECT 1 / $1::int', [0]) })
  conn.exec('BEGIN')
  insert = "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, 'x', 'x', 'none')"
  say('error-in-transaction', sqlstate { conn.exec_params(insert, [PATIENT]) })
  say('status', conn.transaction_status == PG::PQTRANS_INERROR)
  say('failed-transaction', sqlstate { conn.exec('SELECT 1') })
  conn.exec('ROLLBACK')
  say('after-error', *row(conn, "SELECT 'usable'"))
end

def cancel(conn)
  conn.send_query('SELECT pg_sleep(60)')
  # Again and again: a request that comes before the statement has begun cancels nothing.
  conn.cancel until conn.block(0.5)
  say('cancel', sqlstate { conn.get_last_result }, *row(conn, "SELECT 'usable'"))
end

def copy(conn)
  rolled_back(conn) do
    into = 'COPY observations (patient_id, loinc, name, value, unit, observed_at) FROM STDIN'
    result = conn.copy_data(into) do
      1000.times { |n| conn.put_copy_data("#{PATIENT}\tcopy\ttab\\tand\\\\\t#{n}\tno\t2026-01-01 00:00:00Z\n") }
    end
    out = Digest::MD5.new
    rows = "SELECT name, value FROM observations WHERE patient_id = '#{PATIENT}' AND loinc = 'copy' ORDER BY id"
    conn.copy_data("COPY (#{rows}) TO STDOUT") do
      while (line = conn.get_copy_data) do out << line end
    end
    say('copy', result.cmd_tuples, out.hexdigest)
  end
  begin
    conn.copy_data('COPY allergies (patient_id, substance, reaction, severity) FROM STDIN') do
      conn.put_copy_data("#{PATIENT}\tx\tx\tmild\n")
      raise RolledBack
    end
  rescue RolledBack
    say('copy-given-up', *row(conn, "SELECT 'usable'"))
  end
end

def large(conn)
  text = '0123456789abcdef' * 327_680
  say('large-text', row(conn, 'SELECT $1::text', [text])[0] == text)
  rolled_back(conn) do
    value = { value: text, format: 1 }
    conn.exec_params('INSERT INTO pgbench_history (driver, id, payload) VALUES ($1, 1, $2)', [NAME, value])
    back = conn.exec_params('SELECT payload FROM pgbench_history WHERE driver = $1', [NAME], 1).getvalue(0, 0)
    say('large-bytea', back == text)
  end
end

def cursors(conn)
  query = 'SELECT value::int FROM observations WHERE patient_id = $1 AND loinc = $2'
  conn.transaction do
    conn.exec("DECLARE rows CURSOR FOR #{query.sub('$1', "'#{PATIENT}'").sub('$2', "'#{NAME}'")}")
    sum = 0
    until (rows = conn.exec('FETCH 7 FROM rows').column_values(0)).empty? do sum += rows.sum(&:to_i) end
    say('cursor', sum)
  end
  conn.transaction do
    conn.send_query_params(query, MINE)
    conn.set_single_row_mode
    say('single-rows', conn.get_result.stream_each_row.sum { |row| row[0].to_i })
  end
end

def fifty
  conns = Array.new(50) { PG.connect(URL) }
  threads = conns.map do |conn|
    Thread.new { conn.transaction { row(conn, 'SELECT region FROM patients WHERE id = $1', [PATIENT])[0] } }
  end
  say('fifty', threads.map(&:value).count('us-east'))
  conns.each(&:close)
end

conn = PG.connect(URL)
%i[login parameters types prepared pipeline transactions errors cancel copy large cursors].each { |step| send(step, conn) }
fifty
say('delete', conn.exec_params('DELETE FROM observations WHERE patient_id = $1 AND loinc = $2', MINE).cmd_tuples)
conn.close
say('end')
