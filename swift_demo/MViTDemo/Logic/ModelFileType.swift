/// What the system calls the files that are models.
///
/// An `.mlpackage` is a package, no plain file: a type made of its suffix alone conforms to
/// `public.data`, and nothing can be chosen then.
enum ModelFileType {
  /// The type that Core ML declares for an `.mlpackage`; it conforms to `com.apple.package`.
  static let packageIdentifier = "com.apple.coreml.mlpackage"
  /// Suffix of a compiled model, a folder for which no type is declared.
  static let compiledSuffix = "mlmodelc"
  /// What a compiled model's type conforms to.
  static let compiledConformance = "public.directory"
}
