import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.TreeMap;
import java.util.function.Function;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** One connection, and the statements for one update or for many. */
final class Table {
    private final Connection connection;
    private final PreparedStatement update;
    private final PreparedStatement insert;
    private final boolean one;

    static Table connect(String url, Path sql, String incarnation, int batch) {
        try {
            return new Table(url, sql, incarnation, batch == 1);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (SQLException error) {
            throw new IllegalStateException(error);
        }
    }

    private Table(String url, Path sql, String incarnation, boolean one) throws IOException, SQLException {
        this.one = one;
        // A statement is prepared on the server at its first use, not at its fifth.
        connection = DriverManager.getConnection(url + "&prepareThreshold=1");
        try (var session = connection.createStatement()) {
            session.execute(Files.readString(sql.resolve("session.sql")));
        }
        var updates = Files.readString(sql.resolve(one ? "one.sql" : "many.sql"));
        update = prepare(Files.readString(sql.resolve("update.sql")), updates, incarnation);
        insert = prepare(Files.readString(sql.resolve("insert.sql")), updates, incarnation);
    }

    private PreparedStatement prepare(String text, String updates, String incarnation) throws SQLException {
        var filled = text.replace("{updates}", updates).replace("{incarnation}", incarnation);
        return connection.prepareStatement(filled.replaceAll("\\$\\d+", "?"));
    }

    /** A replay changes nothing: its row's fence is not below it. */
    void apply(List<ConsumerRecord<String, String>> records) {
        try {
            var updates = fold(records);
            if (write(update, updates) < updates.size()) {
                write(insert, updates);
            }
        } catch (SQLException error) {
            // The Parallel Consumer tries again.
            throw new IllegalStateException(error);
        }
    }

    /**
     * A statement writes a row once, so a row's updates become one. Where order is by key there is never more than one. Sorted by
     * row, so that two statements never wait for each other.
     */
    private static List<Update> fold(List<ConsumerRecord<String, String>> records) {
        if (records.size() == 1) {
            return List.of(Update.of(records.get(0)));
        }
        var byRow = new TreeMap<String, Update>();
        records.stream().sorted(Comparator.comparingLong(ConsumerRecord::offset)).forEach(record -> {
            var update = Update.of(record);
            var before = byRow.putIfAbsent(update.row(), update);
            if (before != null) {
                before.add(update);
            }
        });
        return new ArrayList<>(byRow.values());
    }

    private int write(PreparedStatement statement, List<Update> updates) throws SQLException {
        if (one) {
            var update = updates.get(0);
            statement.setString(1, update.app);
            statement.setString(2, update.subscription);
            statement.setString(3, update.tagsText());
            statement.setBoolean(4, update.removes);
            statement.setString(5, update.countsText());
            statement.setString(6, update.deviceType);
            statement.setString(7, update.identifier);
            statement.setLong(8, update.offset);
            statement.setLong(9, update.millis);
        } else {
            array(statement, 1, "uuid", updates, update -> update.app);
            array(statement, 2, "uuid", updates, update -> update.subscription);
            array(statement, 3, "jsonb", updates, Update::tagsText);
            array(statement, 4, "bool", updates, update -> update.removes);
            array(statement, 5, "jsonb", updates, Update::countsText);
            array(statement, 6, "text", updates, update -> update.deviceType);
            array(statement, 7, "text", updates, update -> update.identifier);
            array(statement, 8, "int8", updates, update -> update.offset);
            array(statement, 9, "int8", updates, update -> update.millis);
        }
        return statement.executeUpdate();
    }

    private void array(PreparedStatement statement, int number, String type, List<Update> updates, Function<Update, Object> of)
            throws SQLException {
        statement.setArray(number, connection.createArrayOf(type, updates.stream().map(of).toArray()));
    }
}
