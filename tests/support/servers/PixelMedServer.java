// Validates SR files, one path a line on standard input, for as long as there are lines: reading
// the stylesheets takes ten times as long as a report. For each file: what PixelMed's
// DicomSRValidator says about it, then a line "VALIDATED <path>".

import com.pixelmed.validate.DicomSRValidator;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;
import javax.xml.transform.Source;
import javax.xml.transform.Transformer;
import javax.xml.transform.URIResolver;

public class PixelMedServer {
    public static void main(String[] arguments) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        readContextGroupsOnce(validator);
        BufferedReader paths =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream answers = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String path = paths.readLine(); path != null; path = paths.readLine()) {
            try {
                answers.println(validator.validate(path));
            } catch (Exception unreadable) {
                answers.println("Error: " + unreadable);
            }
            answers.println("VALIDATED " + path);
        }
    }

    // The stylesheet asks for its 660 kB of context groups at every code that it checks. Java reads
    // a document once for each file if it knows it by name, but the validator's resolver leaves the
    // name out, so that nine tenths of the time go into reading the same text again. The answers
    // are the same with and without the name.
    private static void readContextGroupsOnce(DicomSRValidator validator) throws Exception {
        Field field;
        try {
            field = DicomSRValidator.class.getDeclaredField("transformerPass1");
        } catch (NoSuchFieldException otherVersion) {
            return; // slower, and as good
        }
        field.setAccessible(true);
        Transformer transformer = (Transformer) field.get(validator);
        URIResolver resolver = transformer.getURIResolver();
        transformer.setURIResolver((href, base) -> {
            Source source = resolver.resolve(href, base);
            if (source != null && (base == null || base.isEmpty())) {
                source.setSystemId(href);
            }
            return source;
        });
    }
}
