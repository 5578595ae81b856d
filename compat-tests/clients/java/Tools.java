import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's command-line tools in one JVM, because starting one per call costs more than all they do.
 *
 * <p>Each line of standard input is a call, {@code {"id":1,"main":"org.apache.kafka.tools.TopicCommand",
 * "args":["--list"],"stdin":""}}; each line of standard output the end of one, {@code {"id":1,"exit":0,"out":"...",
 * "err":"..."}}. Calls run side by side, each in a thread of its own with standard streams of its own, which the threads
 * that it starts inherit. A tool that exits ends its thread, not this process. The end of the input ends the process,
 * whatever still runs.
 */
public final class Tools {
    private static final InheritableThreadLocal<Call> CURRENT = new InheritableThreadLocal<>();
    private static final ObjectMapper JSON = new ObjectMapper();

    private Tools() {}

    public static void main(String[] arguments) throws IOException {
        BufferedReader calls = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream answers = System.out;
        PrintStream errors = System.err;
        System.setIn(new CallInput());
        System.setOut(new PrintStream(new CallOutput(true, errors), true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(new CallOutput(false, errors), true, StandardCharsets.UTF_8));
        Exit.setExitProcedure(Tools::ended);
        Exit.setHaltProcedure(Tools::ended);
        // Some tools flush what they sent in such a hook.
        Exit.setShutdownHookAdder((name, hook) -> CURRENT.get().hooks.add(hook));
        for (String line = calls.readLine(); line != null; line = calls.readLine()) {
            Call call = new Call(JSON.readTree(line), answers);
            Thread thread = new Thread(call::run, "call-" + call.id);
            thread.setDaemon(true);
            thread.start();
        }
        Runtime.getRuntime().halt(0);
    }

    private static void ended(int status, String message) {
        Call call = CURRENT.get();
        if (message != null && !message.isEmpty()) {
            System.err.println(message);
        }
        if (call.exit == null) {
            call.exit = status;
        }
        throw new Ended();
    }

    /** Thrown where a tool exits. An error, so that tools which catch exceptions let it pass. */
    private static final class Ended extends Error {
        private static final long serialVersionUID = 1L;

        Ended() {
            super("the tool exits", null, false, false);
        }
    }

    private static final class Call {
        final long id;
        final String main;
        final List<String> arguments = new ArrayList<>();
        final InputStream in;
        final ByteArrayOutputStream out = new ByteArrayOutputStream();
        final ByteArrayOutputStream err = new ByteArrayOutputStream();
        final List<Runnable> hooks = new ArrayList<>();
        private final PrintStream answers;
        /** With what the tool exited first: some catch their own exit and exit once more. */
        volatile Integer exit;

        Call(JsonNode call, PrintStream answers) {
            this.answers = answers;
            id = call.get("id").asLong();
            main = call.get("main").asText();
            call.get("args").forEach(argument -> arguments.add(argument.asText()));
            in = new ByteArrayInputStream(call.get("stdin").asText().getBytes(StandardCharsets.UTF_8));
        }

        void run() {
            CURRENT.set(this);
            int status = 0;
            try {
                Object strings = arguments.toArray(new String[0]);
                Class.forName(main).getMethod("main", String[].class).invoke(null, strings);
            } catch (InvocationTargetException e) {
                status = failed(e.getCause());
            } catch (ReflectiveOperationException e) {
                status = failed(e);
            }
            try {
                hooks.forEach(Runnable::run);
            } catch (RuntimeException | Ended e) {
                status = failed(e);
            }
            answer(exit == null ? status : exit);
        }

        /** As the JVM ends when main throws. */
        private int failed(Throwable cause) {
            if (!(cause instanceof Ended)) {
                cause.printStackTrace();
            }
            return 1;
        }

        private void answer(int status) {
            ObjectNode answer = JSON.createObjectNode();
            answer.put("id", id).put("exit", status);
            answer.put("out", out.toString(StandardCharsets.UTF_8)).put("err", err.toString(StandardCharsets.UTF_8));
            synchronized (answers) {
                answers.println(answer);
                answers.flush();
            }
        }
    }

    /** Standard input of whichever call reads. */
    private static final class CallInput extends InputStream {
        @Override
        public int read() throws IOException {
            return CURRENT.get().in.read();
        }

        @Override
        public int read(byte[] bytes, int offset, int length) throws IOException {
            return CURRENT.get().in.read(bytes, offset, length);
        }

        @Override
        public int available() throws IOException {
            return CURRENT.get().in.available();
        }
    }

    /** Standard output or error of whichever call writes; what no call writes goes to the errors of this process. */
    private static final class CallOutput extends OutputStream {
        private final boolean isOut;
        private final PrintStream errors;

        CallOutput(boolean isOut, PrintStream errors) {
            this.isOut = isOut;
            this.errors = errors;
        }

        private OutputStream target() {
            Call call = CURRENT.get();
            if (call == null) {
                return errors;
            }
            return isOut ? call.out : call.err;
        }

        @Override
        public void write(int b) throws IOException {
            target().write(b);
        }

        @Override
        public void write(byte[] bytes, int offset, int length) throws IOException {
            target().write(bytes, offset, length);
        }
    }
}
