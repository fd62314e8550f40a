import Foundation
import MViTKit
import Testing

@Suite("The self-test's comparison with Python")
struct SelfTestTests {
  private func expectation(_ answer: String) throws -> SelfTestExpectation {
    let head = """
      {"version": 1, "model": "A", "program_sha256": "p", "function": "main", "image": "a.png",
       "input_sha256": "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc",
       "tolerance": 0.05, "minimum_agreement": 0.75, 
      """
    return try JSONDecoder().decode(
      SelfTestExpectation.self, from: Data((head + answer + "}").utf8))
  }

  private func classifier() throws -> SelfTestExpectation {
    try expectation(
      #""top": [{"label": "a", "probability": 0.9}, {"label": "b", "probability": 0.1}]"#)
  }

  private func segmenter() throws -> SelfTestExpectation {
    try expectation(#""map": {"width": 2, "height": 2, "runs": [0, 3, 7, 1]}"#)
  }

  private func refusal(_ text: String) throws -> String {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent(
      "\(UUID().uuidString).selftest.json")
    try Data(text.utf8).write(to: url)
    let error = #expect(throws: SelfTestError.self) { try SelfTestExpectation(contentsOf: url) }
    #expect(error?.file == url.lastPathComponent)
    return error?.problem ?? ""
  }

  @Test("runs become the class map row by row")
  func runs() throws {
    #expect(try segmenter().map?.classes == [0, 0, 0, 7])
  }

  @Test("a device agrees within the tolerance and with the same likeliest class")
  func scores() throws {
    let expected = try classifier()
    func agrees(_ scores: [(String, Double)]) -> Bool {
      expected.check(
        scores: scores.enumerated().map {
          ClassScore(index: $0.offset, label: $0.element.0, score: $0.element.1)
        }
      ).agrees
    }
    #expect(agrees([("a", 0.9), ("b", 0.1)]))
    #expect(agrees([("a", 0.86), ("b", 0.14)]))
    #expect(!agrees([("a", 0.84), ("b", 0.16)]))
    #expect(!agrees([("b", 0.9), ("a", 0.1)]))
    #expect(!agrees([("a", 0.9)]))
    #expect(!agrees([]))
  }

  @Test("a device agrees where enough cells are the same")
  func maps() throws {
    let expected = try segmenter()
    func agrees(_ classes: [Int32], width: Int = 2) throws -> Bool {
      let size = PixelSize(width: width, height: classes.count / width)
      return expected.check(map: try ClassMap(size: size, classes: classes)).agrees
    }
    #expect(try agrees([0, 0, 0, 7]))
    #expect(try agrees([0, 0, 1, 7]))
    #expect(try !agrees([0, 1, 1, 7]))
    #expect(try !agrees([0, 0, 0, 7], width: 4))
  }

  @Test("an answer of the other kind disagrees")
  func otherKind() throws {
    let map = try ClassMap(size: PixelSize(width: 1, height: 1), classes: [0])
    #expect(try !classifier().check(map: map).agrees)
    #expect(try !segmenter().check(scores: []).agrees)
  }

  // The fingerprint of the bytes 1 2 3 is `printf '\x01\x02\x03' | sha256sum` written wrongly on
  // purpose in `expectation`: any other pixels must disagree.
  @Test("pixels are compared by the fingerprint of red, green, blue")
  func pixels() throws {
    let image = try PixelImage(
      size: PixelSize(width: 1, height: 1), bytesPerRow: 4, order: .bgra, bytes: [3, 2, 1, 255])
    let digest = "039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81"
    let same = try JSONDecoder().decode(
      SelfTestExpectation.self,
      from: Data(
        """
        {"version": 1, "model": "A", "program_sha256": "p", "function": "main", "image": "a.png",
         "input_sha256": "\(digest)", "tolerance": 0, "minimum_agreement": 1,
         "top": [{"label": "a", "probability": 1}]}
        """.utf8))
    #expect(same.check(input: image).agrees)
    #expect(try !classifier().check(input: image).agrees)
  }

  @Test("another package is noticed")
  func package() throws {
    #expect(try classifier().check(programSHA256: "p").agrees)
    #expect(try !classifier().check(programSHA256: "q").agrees)
    #expect(try !classifier().check(programSHA256: nil).agrees)
  }

  @Test("the verdict names what disagrees; notes do not count")
  func verdict() {
    let good = SelfTestCheck(name: "Package", agrees: true, detail: "")
    let bad = SelfTestCheck(name: "Answer", agrees: false, detail: "")
    #expect(SelfTestReport(model: "A", checks: [good], notes: [bad]).agrees)
    let report = SelfTestReport(model: "A", checks: [good, bad])
    #expect(!report.agrees)
    #expect(report.verdict == "This device disagrees with the Python side: answer.")
  }

  @Test("a broken file is refused with the key at fault")
  func brokenFiles() throws {
    #expect(try refusal("{") == "is no JSON")
    #expect(try refusal("{}") == "version is missing")
    #expect(
      try refusal(#"{"version": 2}"#)
        == "version: version 2 is not 1, the one that is read here")
    #expect(try refusal(#"{"version": "1"}"#) == "version has the wrong type")
    let head = """
      {"version": 1, "model": "A", "program_sha256": "p", "function": "main", "image": "a.png",
       "input_sha256": "", "tolerance": 0, "minimum_agreement": 1
      """
    #expect(try refusal(head + "}") == "top: exactly one of top and map must be there")
    #expect(try refusal(head + #", "top": []}"#) == "top: no class is listed")
    #expect(
      try refusal(head + #", "map": {"width": 2, "height": 2, "runs": [0, 3]}}"#)
        == "map: the runs do not fill the map")
    #expect(
      try refusal(head + #", "map": {"width": 2, "height": 2, "runs": [0, 5]}}"#)
        == "map: the runs do not fill the map")
  }
}
