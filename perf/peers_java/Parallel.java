import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.nio.file.Path;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Confluent's Parallel Consumer applying Millpond's updates, as one would who wants it fast and simple: a connection for each of
 * its threads, the same statements as everybody else here. Goes on until it is ended.
 *
 * <p>BROKERS TOPIC GROUP JDBC-URL SQL-DIRECTORY INCARNATION KEY|UNORDERED BATCH THREADS
 */
public final class Parallel {
    public static void main(String[] args) throws Exception {
        var batch = Integer.parseInt(args[7]);
        var properties = new Properties();
        properties.put("bootstrap.servers", args[0]);
        properties.put("group.id", args[2]);
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        if (batch > 1) {
            // Or batches don't fill.
            properties.put("max.poll.records", "5000");
        }
        var consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
        var options = ParallelConsumerOptions.<String, String>builder()
                .consumer(consumer)
                .ordering(ProcessingOrder.valueOf(args[6]))
                .maxConcurrency(Integer.parseInt(args[8]))
                .batchSize(batch)
                .build();
        var sql = Path.of(args[4]);
        var tables = ThreadLocal.withInitial(() -> Table.connect(args[3], sql, args[5], batch));
        var processor = ParallelStreamProcessor.createEosStreamProcessor(options);
        processor.subscribe(List.of(args[1]));
        processor.poll(context -> tables.get().apply(context.getConsumerRecordsFlattened()));
    }
}
