// Validates several SR files in one JVM: loading the stylesheets takes longer than a small report.
// For each file: a line "FILE <path>", then what PixelMed's DicomSRValidator says about it.

import com.pixelmed.validate.DicomSRValidator;

public class PixelMedBatch {
    public static void main(String[] paths) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        for (String path : paths) {
            System.out.println("FILE " + path);
            System.out.println(validator.validate(path));
        }
    }
}
