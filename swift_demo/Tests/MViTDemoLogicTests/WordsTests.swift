import MViTKit
import Testing

@testable import MViTDemoLogic

@Suite("The app's words")
struct WordsTests {
  @Test(
    "take their values in order, or where a translation puts them",
    arguments: [
      ("%@ and %@", "a and b"), ("%2$@ before %1$@", "b before a"), ("100 %", "100 %"),
      ("100 %% of %@", "100 % of a"), ("%@", "a"), ("%3$@|", "|"), ("no value", "no value"),
    ])
  func filling(pattern: String, text: String) {
    #expect(filled(pattern, with: ["a", "b"]) == text)
  }

  @Test("a value that looks like a place is left alone")
  func values() {
    #expect(filled("%@ %@", with: ["%@", "50 %"]) == "%@ 50 %")
  }

  @Test("VoiceOver hears words, not symbols")
  func spoken() {
    let score = ClassScore(index: 3, label: "red three", score: 0.966)
    #expect(Spoken.score(score) == "red three, 97 percent")
    #expect(Spoken.share(of: "blue digit", 0.123) == "blue digit, 12 percent of the picture")
    #expect(Spoken.latency(median: nil, p95: 0.1) == "No latency measured yet")
    #expect(
      Spoken.latency(median: 0.0034, p95: 0.0051)
        == "Prediction takes 3.4 milliseconds in the median, 5.1 at the 95th percentile")
  }

  @Test("a plan's line names device, work and operations")
  func plan() {
    let plan = ComputePlanSummary([
      PlannedOperation(name: "conv", device: .neuralEngine, weight: 0.75),
      PlannedOperation(name: "softmax", device: .cpu, weight: 0.25),
    ])
    #expect(plan.lines[0] == "Neural Engine: 75.0 % of the work, 1 operations")
  }

  @Test("decoding is told apart from resizing")
  func timing() {
    let photo = PredictionTiming(decoding: 0.05, resizing: 0.002, prediction: 0.003, path: .exact)
    #expect(photo.explanation == "decoding 50.0 ms, resizing 2.00 ms more")
    let frame = PredictionTiming(resizing: 0.002, prediction: 0.003, path: .exact)
    #expect(frame.explanation == "resizing 2.00 ms more")
  }

  @Test("Files is asked for packages by the type that Core ML declares, not by a suffix")
  func fileTypes() {
    #expect(ModelFileType.packageIdentifier == "com.apple.coreml.mlpackage")
    #expect(ModelFileType.compiledSuffix == "mlmodelc")
    #expect(ModelFileType.compiledConformance == "public.directory")
  }
}
